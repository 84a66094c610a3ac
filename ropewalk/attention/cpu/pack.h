// Keys and values in the layout that the matrix kernel wants: panels of 64 columns, for bfloat16 two rows side by side.
#pragma once

#include "rotate.h"

namespace ropewalk {

constexpr int64_t PANEL = 64;  // the widest panel that torch's kernel takes

// The keys of one source under one key map, [batch, heads, count, width]: slot 0 is the key at index `first`.
template <typename T>
struct Keys {
  const T* data;
  int64_t stride_batch, stride_head, stride_token;
  int64_t first, count;
  Tables<KeyAngle<T>> tables;

  // Every query head has keys of its own.
  bool own() const { return tables.masks != nullptr; }
  const T* row(int64_t batch, int64_t head, int64_t index) const {
    return data + batch * stride_batch + head * stride_head + (index - first) * stride_token;
  }
  bool holds(int64_t index) const { return index >= first && index < first + count; }
};

// Packs PANEL keys from index `start` on, transposed: [padded / pairs][PANEL][pairs], zero where there is no key.
// `head` is the key head, `query_head` the one whose mask counts.
template <typename T>
void pack_keys(const Keys<T>& keys, int64_t batch, int64_t head, int64_t query_head, int64_t start, int64_t padded,
               const Turner<T>& turner, T* scratch, T* to) {
  for (int64_t i = 0; i < PANEL; ++i) {
    T* row = scratch + i * padded;
    if (keys.holds(start + i)) {
      turner.turn(keys.row(batch, head, start + i), row, keys.tables, start + i - keys.first, query_head);
    } else {
      std::fill(row, row + padded, T(0.0f));
    }
  }
  const int64_t words = padded * sizeof(T) / 4;
  for (int64_t i = 0; i < PANEL; i += 16) {
    for (int64_t j = 0; j < words; j += 16) {
      transpose(reinterpret_cast<const int32_t*>(scratch) + i * words + j, words,
                reinterpret_cast<int32_t*>(to) + j * PANEL + i, PANEL);
    }
  }
}

// Packs `rows` (even) values from `row` on, of which `count` are there, into columns [0, 64): [rows / 2][PANEL][2] or
// [rows][PANEL]. `width` is the number of columns that are there. bfloat16 columns come in the order of `load_sums`:
// of every 32 the even ones first, which costs no shuffle.
inline void pack_values(const BFloat16* row, int64_t stride, int64_t count, int64_t rows, int64_t width, BFloat16* to) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000));
  for (int64_t i = 0; i < rows; i += 2, to += 2 * PANEL) {
    for (int64_t j = 0; j < PANEL; j += 32) {
      const int64_t left = std::clamp<int64_t>(width - j, 0, 32);
      const __mmask32 mask = static_cast<__mmask32>((1ull << left) - 1);
      const __m512i low = _mm512_maskz_loadu_epi16(i < count ? mask : 0, row + i * stride + j);
      const __m512i high = _mm512_maskz_loadu_epi16(i + 1 < count ? mask : 0, row + (i + 1) * stride + j);
      const __m512i even = _mm512_ternarylogic_epi32(upper, _mm512_slli_epi32(high, 16), low, 0xca);
      const __m512i odd = _mm512_ternarylogic_epi32(upper, high, _mm512_srli_epi32(low, 16), 0xca);
      _mm512_storeu_si512(to + 2 * j, even), _mm512_storeu_si512(to + 2 * j + 32, odd);
    }
  }
}
inline void pack_values(const float* row, int64_t stride, int64_t count, int64_t rows, int64_t width, float* to) {
  for (int64_t i = 0; i < rows; ++i, to += PANEL) {
    for (int64_t j = 0; j < PANEL; j += 16) {
      const __mmask16 mask = i < count ? tail(std::max<int64_t>(0, width - j)) : 0;
      _mm512_storeu_ps(to + j, _mm512_maskz_loadu_ps(mask, row + i * stride + j));
    }
  }
}

}  // namespace ropewalk
