// torch.ops.ropewalk.attend: attention in bands, with the rotation folded into the packing of keys and queries.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "decode.h"
#include "edges.h"
#include "prefill.h"

namespace ropewalk {
namespace {

using at::Tensor;
using at::TensorList;

const float* numbers(const Tensor& x) { return x.numel() == 0 ? nullptr : x.const_data_ptr<float>(); }

// Four tensors per map: cos, sin, and the same for the pairs that masks pick; empty ones where there are none. The
// positions asked for are in the rows [first, first + count).
template <typename A>
Tables<A> tables_of(TensorList all, TensorList masks, int64_t first, int64_t count, size_t i) {
  const A* found[4] = {};
  for (size_t j = 0; j < 4; ++j) {
    const Tensor& table = all[4 * i + j];
    if (table.numel() == 0) continue;
    TORCH_CHECK(table.is_contiguous() && first + count <= table.size(-2), "tables must be dense and long enough");
    found[j] = table.const_data_ptr<A>() + first * table.size(-1);
  }
  Tables<A> tables{found[0], found[1], found[2], found[3]};
  if (masks[i].numel() > 0) tables.masks = masks[i].const_data_ptr<bool>();
  return tables;
}

template <typename T>
void run(const Tensor& query, TensorList keys, const Tensor& value, at::IntArrayRef first, TensorList key_tables,
         TensorList key_masks, TensorList query_tables, TensorList query_masks, at::IntArrayRef query_row,
         at::IntArrayRef key_of, at::IntArrayRef query_of, const Tensor& seen, double scale, double softcap,
         const Tensor& factors, const Tensor& sinks, int64_t start, bool interleaved, Tensor& output, Tensor& lse) {
  const int64_t width = query.size(3), unit = std::is_same_v<T, BFloat16> ? 32 : 16;
  const int64_t pairs = query_tables[0].numel() == 0 ? 0 : query_tables[0].size(-1);
  Problem<T> p{
      .layout = {width, round_up(width, unit), start, pairs, interleaved},
      .batch = query.size(0),
      .heads = query.size(1),
      .key_heads = value.size(1),
      .queries = query.size(2),
      .keys = value.size(2),
      .value_width = value.size(3),
      .query = query.const_data_ptr<T>(),
      .value = value.const_data_ptr<T>(),
      .query_batch = query.stride(0),
      .query_head = query.stride(1),
      .query_token = query.stride(2),
      .value_batch = value.stride(0),
      .value_head = value.stride(1),
      .value_token = value.stride(2),
      .scale = static_cast<float>(scale),
      .softcap = static_cast<float>(softcap),
      .factors = numbers(factors),
      .sinks = numbers(sinks),
      .output = output.data_ptr<T>(),
      .lse = lse.data_ptr<float>(),
  };
  for (size_t i = 0; i < keys.size(); ++i) {
    p.sources.push_back({keys[i].const_data_ptr<T>(), keys[i].stride(0), keys[i].stride(1), keys[i].stride(2),
                         first[i], keys[i].size(2),
                         tables_of<KeyAngle<T>>(key_tables, key_masks, 0, keys[i].size(2), i)});
  }
  for (size_t i = 0; i < query_masks.size(); ++i) {
    p.maps.push_back(tables_of<float>(query_tables, query_masks, query_row[i], p.queries, i));
  }
  for (size_t i = 0; i < key_of.size(); ++i) {
    const int32_t* edge = seen.const_data_ptr<int32_t>() + 2 * i * p.queries;
    p.bands.push_back({edge, edge + p.queries, key_of[i], query_of[i]});
  }
  is_few(p) ? decode(p) : prefill(p);
}

std::tuple<Tensor, Tensor> attend(const Tensor& query, TensorList keys, const Tensor& value, at::IntArrayRef first,
                                  TensorList key_tables, TensorList key_masks, TensorList query_tables,
                                  TensorList query_masks, at::IntArrayRef query_row, at::IntArrayRef key_of,
                                  at::IntArrayRef query_of, at::IntArrayRef regions, const Tensor& positions,
                                  double scale, double softcap, const Tensor& factors, const Tensor& sinks,
                                  int64_t start, bool interleaved) {
  TORCH_CHECK(query.stride(3) == 1 && value.stride(3) == 1 && positions.is_contiguous(), "rows must be dense");
  for (const Tensor& key : keys) TORCH_CHECK(key.stride(3) == 1 && key.size(3) == query.size(3), "rows must be dense");
  Tensor output = at::empty({query.size(0), query.size(2), query.size(1), value.size(3)}, query.options());
  Tensor lse = at::empty({query.size(0), query.size(1), query.size(2)}, query.options().dtype(at::kFloat));
  const Tensor seen = edges(regions, value.size(2), query.size(2), positions);
  const auto go = query.scalar_type() == at::kBFloat16 ? run<BFloat16> : run<float>;
  go(query, keys, value, first, key_tables, key_masks, query_tables, query_masks, query_row, key_of, query_of, seen,
     scale, softcap, factors, sinks, start, interleaved, output, lse);
  return {output.transpose(1, 2), lse};
}

template <typename T>
void turn_rows(const Tensor& x, const Tables<float>& tables, const Layout& layout, Tensor& output) {
  const int64_t heads = x.size(1), tokens = x.size(2);
  const Turner<T> turner(layout);
  at::parallel_for(0, x.size(0) * heads * tokens, 1024, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t b = i / tokens / heads, h = i / tokens % heads, t = i % tokens;
      const T* row = x.const_data_ptr<T>() + b * x.stride(0) + h * x.stride(1) + t * x.stride(2);
      turner.turn(row, output.data_ptr<T>() + i * layout.width, tables, t, h);
    }
  });
}

// Rows [B, H, T, D] turned by the angles of T positions, [1, T, pairs].
Tensor turn(const Tensor& x, const Tensor& cos, const Tensor& sin, int64_t start, bool interleaved) {
  TORCH_CHECK(x.stride(3) == 1, "rows must be dense");
  TORCH_CHECK(cos.is_contiguous() && sin.is_contiguous(), "tables must be dense");
  Tensor output = at::empty(x.sizes(), x.options());
  const Layout layout{x.size(3), x.size(3), start, cos.size(-1), interleaved};
  const auto go = x.scalar_type() == at::kBFloat16 ? turn_rows<BFloat16> : turn_rows<float>;
  go(x, {numbers(cos), numbers(sin)}, layout, output);
  return output;
}

// Whether torch's matrix kernel multiplies packed bfloat16 here.
bool packs_bfloat16() { return at::native::cpublas::could_pack(at::kBFloat16); }

}  // namespace
}  // namespace ropewalk

TORCH_LIBRARY(ropewalk, m) {
  m.def(
      "attend(Tensor query, Tensor[] keys, Tensor value, int[] first, Tensor[] key_tables, Tensor[] key_masks, "
      "Tensor[] query_tables, Tensor[] query_masks, int[] query_row, int[] key_of, int[] query_of, int[] regions, "
      "Tensor positions, float scale, float softcap, Tensor factors, Tensor sinks, int start, bool interleaved) "
      "-> (Tensor, Tensor)");
  m.def("edges(int[] regions, int keys, int queries, Tensor positions) -> Tensor");
  m.def("turn(Tensor x, Tensor cos, Tensor sin, int start, bool interleaved) -> Tensor");
  m.def("packs_bfloat16() -> bool", &ropewalk::packs_bfloat16);
}

TORCH_LIBRARY_IMPL(ropewalk, CPU, m) {
  m.impl("attend", &ropewalk::attend);
  m.impl("edges", &ropewalk::edges);
  m.impl("turn", &ropewalk::turn);
}
