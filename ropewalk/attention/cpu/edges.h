// Which keys each query sees in a region, as two edges.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace ropewalk {

// Regions as (lo, hi or -1, chunk, 0 past or 1 future) each; int32 [regions, 2, queries]. Query t, at position m, sees
// the keys [low, high): those at positions n on its side with lo <= |floor(m / chunk) - floor(n / chunk)| < hi. Both
// edges grow with t, and are equal where it sees none. `positions` of the keys ascend; empty for 0, 1, 2, ...
inline at::Tensor edges(at::IntArrayRef regions, int64_t keys, int64_t queries, const at::Tensor& positions) {
  const bool gaps = positions.numel() > 0;
  const int64_t* n = gaps ? positions.const_data_ptr<int64_t>() : nullptr;
  const int64_t stop = gaps ? n[keys - 1] + 1 : keys, count = regions.size() / 4;
  at::Tensor found = at::empty({count, 2, queries}, at::kInt);
  int32_t* to = found.data_ptr<int32_t>();
  const auto index = [&](int64_t position) { return gaps ? std::lower_bound(n, n + keys, position) - n : position; };
  for (int64_t i = 0; i < count; ++i) {
    const int64_t lo = regions[4 * i], hi = regions[4 * i + 1], chunk = regions[4 * i + 2];
    for (int64_t t = 0; t < queries; ++t) {
      const int64_t m = gaps ? n[keys - queries + t] : keys - queries + t, own = m / chunk;
      int64_t low = 0, high = stop;
      if (regions[4 * i + 3] == 0) {
        if (hi >= 0) low = std::max<int64_t>((own - hi + 1) * chunk, 0);
        high = std::max<int64_t>(std::min((own - lo + 1) * chunk, m + 1), 0);
      } else {
        low = std::min(std::max((own + lo) * chunk, m + 1), stop);
        if (hi >= 0) high = std::min((own + hi) * chunk, stop);
      }
      const int64_t last = index(high);
      to[2 * i * queries + t] = static_cast<int32_t>(std::min<int64_t>(index(low), last));
      to[(2 * i + 1) * queries + t] = static_cast<int32_t>(last);
    }
  }
  return found;
}

}  // namespace ropewalk
