// The running softmax of one query over blocks of keys.
#pragma once

#include "problem.h"

namespace ropewalk {

// scores become cap * tanh(scale * scores / cap); minus infinity stays.
inline void soften(float* scores, int64_t count, float scale, float cap) {
  for (int64_t i = 0; i < count; i += 16) {
    const __m512 x = _mm512_loadu_ps(scores + i);
    const __mmask16 seen = _mm512_cmp_ps_mask(x, _mm512_set1_ps(NONE), _CMP_NEQ_OQ);
    _mm512_mask_storeu_ps(scores + i, seen, soften(_mm512_mul_ps(x, _mm512_set1_ps(scale)), cap));
  }
}

// Writes the weights 2^(rate * score - top) of `count` scores, a multiple of 32. `top` is the largest exponent so far;
// where it grows, `total`, the sum of all weights, and `sums`, `width` numbers that were summed by them, are scaled.
template <typename T>
inline void weigh(const float* scores, int64_t count, float rate, T* weights, float& top, float& total, float* sums,
                  int64_t width) {
  __m512 even = _mm512_loadu_ps(scores), odd = _mm512_loadu_ps(scores + 16);
  for (int64_t i = 32; i < count; i += 32) {
    even = _mm512_max_ps(even, _mm512_loadu_ps(scores + i));
    odd = _mm512_max_ps(odd, _mm512_loadu_ps(scores + i + 16));
  }
  const float here = _mm512_reduce_max_ps(_mm512_max_ps(even, odd)) * rate;
  if (here > top) {
    const float shrink = std::exp2(top - here);
    const __m512 times = _mm512_set1_ps(shrink);
    for (int64_t i = 0; i < width; i += 16) _mm512_storeu_ps(sums + i, _mm512_mul_ps(_mm512_loadu_ps(sums + i), times));
    total *= shrink;
    top = here;
  } else if (top == NONE) {
    std::fill(weights, weights + count, T(0.0f));
    return;
  }
  const __m512 times = _mm512_set1_ps(rate), base = _mm512_set1_ps(top);
  __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t i = 0; i < count; i += 32) {
    const __m512 x = exp2<T>(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), times, base));
    const __m512 y = exp2<T>(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i + 16), times, base));
    sum[0] = _mm512_add_ps(sum[0], x), sum[1] = _mm512_add_ps(sum[1], y);
    if constexpr (std::is_same_v<T, BFloat16>) {
      _mm512_storeu_si512(weights + i, (__m512i)_mm512_cvtne2ps_pbh(y, x));
    } else {
      _mm512_storeu_ps(weights + i, x), _mm512_storeu_ps(weights + i + 16, y);
    }
  }
  total += _mm512_reduce_add_ps(_mm512_add_ps(sum[0], sum[1]));
}

}  // namespace ropewalk
