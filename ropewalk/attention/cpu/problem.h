// One call for attention: tensors as pointers, bands as edges, and the running softmax of a row.
#pragma once

#include <vector>

#include "pack.h"

namespace ropewalk {

// Query t sees the keys [low[t], high[t]) under these maps; both edges grow with t.
struct Band {
  const int32_t *low, *high;  // [queries]
  int64_t source, map;        // of the keys, of the query
};

template <typename T>
struct Problem {
  Layout layout;
  int64_t batch, heads, key_heads, queries, keys, value_width;
  const T *query, *value;
  int64_t query_batch, query_head, query_token;  // strides
  int64_t value_batch, value_head, value_token;
  std::vector<Keys<T>> sources;
  std::vector<Tables<float>> maps;
  std::vector<Band> bands;
  float scale, softcap;
  const float* factors;  // of each query, or nullptr
  const float* sinks;    // of each head, or nullptr
  T* output;             // [batch, queries, heads, value_width]
  float* lse;            // [batch, heads, queries]

  int64_t group() const { return heads / key_heads; }
  // What turns a score into a power of two, once it is soft-capped.
  float rate() const { return softcap > 0 ? LOG2E : scale * LOG2E; }
  const T* query_row(int64_t b, int64_t h, int64_t t) const {
    return query + b * query_batch + h * query_head + t * query_token;
  }
  const T* value_row(int64_t b, int64_t k, int64_t n) const {
    return value + b * value_batch + k * value_head + n * value_token;
  }
  float factor(int64_t t) const { return factors == nullptr ? 1.0f : factors[t]; }

  // 32 columns of weighted values in their own order; values of bfloat16 were packed with the even ones first.
  static std::pair<__m512, __m512> load_sums(const float* sums) {
    const __m512 first = _mm512_loadu_ps(sums), second = _mm512_loadu_ps(sums + 16);
    if constexpr (std::is_same_v<T, float>) return {first, second};
    return interleave(first, second);
  }

  // Writes a row: `total` = sum of 2^(rate * score - top), `sum` the values weighted alike.
  void write(int64_t b, int64_t h, int64_t t, const float* sum, float total, float top) const {
    const bool empty = !(total > 0.0f);
    const float lse_here = empty ? NONE : (top + std::log2(total)) * LN2;
    lse[(b * heads + h) * queries + t] = lse_here;
    float share = empty ? 0.0f : 1.0f / total;
    if (sinks != nullptr && !empty) share /= 1.0f + std::exp(sinks[h] - lse_here);
    T* to = output + ((b * queries + t) * heads + h) * value_width;
    for (int64_t i = 0; i < value_width; i += 32) {
      const auto [first, second] = load_sums(sum + i);
      narrow(to + i, empty ? _mm512_setzero_ps() : _mm512_mul_ps(first, _mm512_set1_ps(share)), tail(value_width - i));
      if (value_width - i <= 16) break;
      narrow(to + i + 16, empty ? _mm512_setzero_ps() : _mm512_mul_ps(second, _mm512_set1_ps(share)),
             tail(value_width - i - 16));
    }
  }
};

}  // namespace ropewalk
