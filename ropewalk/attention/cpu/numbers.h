// Sixteen numbers at a time: conversions, 2^x, transposition. AVX-512 (F, BW, DQ, VL, BF16).
#pragma once

#include <ATen/native/CPUBlas.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <utility>

namespace ropewalk {

using at::BFloat16;
using at::Half;

constexpr float NONE = -std::numeric_limits<float>::infinity();
constexpr float LOG2E = 1.44269504088896340736f;
constexpr float LN2 = 0.69314718055994530942f;

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
inline int64_t round_down(int64_t n, int64_t unit) { return n / unit * unit; }

// Memory on a cache line, not initialised.
template <typename T>
class Block {
 public:
  explicit Block(size_t count)
      : data_(static_cast<T*>(std::aligned_alloc(64, round_up(count * sizeof(T), 64) + 64)), std::free) {
    if (!data_) throw std::bad_alloc();
  }
  T* get() const { return data_.get(); }

 private:
  std::unique_ptr<T, void (*)(void*)> data_;
};

inline __m512 widen(const BFloat16* x, __mmask16 mask = 0xffff) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x)), 16));
}
inline __m512 widen(const Half* x, __mmask16 mask = 0xffff) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, x));
}
inline __m512 widen(const float* x, __mmask16 mask = 0xffff) { return _mm512_maskz_loadu_ps(mask, x); }

inline void narrow(BFloat16* x, __m512 value, __mmask16 mask = 0xffff) {
  _mm256_mask_storeu_epi16(x, mask, (__m256i)_mm512_cvtneps_pbh(value));
}
inline void narrow(float* x, __m512 value, __mmask16 mask = 0xffff) { _mm512_mask_storeu_ps(x, mask, value); }

inline __mmask16 tail(int64_t left) { return left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1); }

// Minimax polynomials of 2^f on [0, 1), of a relative error of 7e-5 (bfloat16 rounds by 2e-3) and 2e-9.
constexpr float SHORT[] = {0.9999252192f, 0.6958335367f, 0.226067159f, 0.07802452332f};
constexpr float LONG[] = {1.000000002f,    0.6931469838f,   0.2402298363f,  0.055483342f,
                          0.009678840983f, 0.001243968787f, 0.0002170225555f};

// 2^x for x <= 0, minus infinity included, as exact as numbers of type T are.
template <typename T>
inline __m512 exp2(__m512 x) {
  constexpr bool rounded = std::is_same_v<T, BFloat16>;
  constexpr int degree = rounded ? 3 : 6;
  constexpr const float* factors = rounded ? SHORT : LONG;
  const __m512 f = _mm512_reduce_ps(x, 0x09);  // x - floor(x)
  __m512 p = _mm512_set1_ps(factors[degree]);
  for (int i = degree - 1; i >= 0; --i) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(factors[i]));
  return _mm512_scalef_ps(p, x);
}

// cap * tanh(x / cap), by (1 - y) / (1 + y) with y = e^(-2 |x| / cap).
inline __m512 soften(__m512 x, float cap) {
  const __m512 size = _mm512_abs_ps(x);
  const __m512 power = exp2<float>(_mm512_mul_ps(size, _mm512_set1_ps(-2.0f * LOG2E / cap)));  // e^(-2 |x| / cap)
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 ratio = _mm512_div_ps(_mm512_sub_ps(one, power), _mm512_add_ps(one, power));
  const __m512 result = _mm512_mul_ps(ratio, _mm512_set1_ps(cap));
  const __m512 zero = _mm512_setzero_ps();
  return _mm512_mask_sub_ps(result, _mm512_cmp_ps_mask(x, zero, _CMP_LT_OQ), zero, result);
}

// Thirty-two numbers, taken from the two in turns.
inline std::pair<__m512, __m512> interleave(__m512 even, __m512 odd) {
  const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  return {_mm512_permutex2var_ps(even, low, odd), _mm512_permutex2var_ps(even, high, odd)};
}

// to[j * to_stride + i] = from[i * from_stride + j] for 16 x 16 words of 32 bits.
inline void transpose(const int32_t* from, int64_t from_stride, int32_t* to, int64_t to_stride) {
  __m512i r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(from + i * from_stride);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    _mm512_storeu_si512(to + i * to_stride, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
    _mm512_storeu_si512(to + (i + 4) * to_stride, _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88));
    _mm512_storeu_si512(to + (i + 8) * to_stride, _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
    _mm512_storeu_si512(to + (i + 12) * to_stride, _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd));
  }
}

// C = A B (+ C), B packed in pairs of rows for bfloat16; torch's own kernel (AMX for bfloat16).
template <typename T>
inline void multiply(int64_t M, int64_t N, int64_t K, const T* a, int64_t lda, const T* b, int64_t ldb, float* c,
                     int64_t ldc, bool add) {
  at::native::cpublas::brgemm(M, N, K, lda, ldb, ldc, add, a, b, c, std::is_same_v<T, BFloat16>);
}

}  // namespace ropewalk
