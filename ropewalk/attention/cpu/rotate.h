// Rows of queries and keys, rotated in float32 and rounded once.
#pragma once

#include "numbers.h"

namespace ropewalk {

// Where the rotated pairs stand in a head of `width` numbers.
struct Layout {
  int64_t width, padded;  // padded: a multiple of what a row of a tile register holds
  int64_t start, pairs;
  bool interleaved;
};

// cos and sin of positions, [positions, pairs]; a second pair of them for the rotary pairs that a head's mask picks.
struct Tables {
  const float *cos = nullptr, *sin = nullptr;
  const float *other_cos = nullptr, *other_sin = nullptr;
  const bool* masks = nullptr;  // [heads, pairs]

  bool empty() const { return cos == nullptr; }
};

// Turns rows one at a time; holds the scratch of one thread.
template <typename T>
class Turner {
 public:
  explicit Turner(const Layout& layout)
      : layout_(layout), row_(layout.padded + 32), cos_(layout.pairs + 16), sin_(layout.pairs + 16) {}

  // to[0 ... padded) = factor * x turned by the angles of `position`, zero beyond the width.
  void turn(const T* x, T* to, const Tables& tables, int64_t position, int64_t head, float factor = 1.0f) {
    const Layout& l = layout_;
    float* row = row_.get();
    for (int64_t i = 0; i < l.padded; i += 16) {
      _mm512_storeu_ps(row + i, widen(x + i, tail(std::max<int64_t>(0, l.width - i))));
    }
    if (!tables.empty()) {
      const float *cos = tables.cos + position * l.pairs, *sin = tables.sin + position * l.pairs;
      if (tables.masks != nullptr) {
        const float* other_cos = tables.other_cos + position * l.pairs;
        const float* other_sin = tables.other_sin + position * l.pairs;
        const bool* mask = tables.masks + head * l.pairs;
        float *mixed_cos = cos_.get(), *mixed_sin = sin_.get();
        for (int64_t i = 0; i < l.pairs; ++i) {
          mixed_cos[i] = mask[i] ? other_cos[i] : cos[i];
          mixed_sin[i] = mask[i] ? other_sin[i] : sin[i];
        }
        cos = mixed_cos, sin = mixed_sin;
      }
      rotate(row + l.start, cos, sin);
    }
    const __m512 times = _mm512_set1_ps(factor);
    for (int64_t i = 0; i < l.padded; i += 16) narrow(to + i, _mm512_mul_ps(_mm512_loadu_ps(row + i), times));
  }

 private:
  void rotate(float* row, const float* cos, const float* sin) const {
    const int64_t pairs = layout_.pairs;
    if (layout_.interleaved) {
      for (int64_t i = 0; i < pairs; ++i) {
        const float first = row[2 * i], second = row[2 * i + 1];
        row[2 * i] = first * cos[i] - second * sin[i];
        row[2 * i + 1] = second * cos[i] + first * sin[i];
      }
      return;
    }
    for (int64_t i = 0; i < pairs; i += 16) {
      const __mmask16 mask = tail(pairs - i);
      const __m512 first = _mm512_maskz_loadu_ps(mask, row + i), second = _mm512_maskz_loadu_ps(mask, row + pairs + i);
      const __m512 c = _mm512_maskz_loadu_ps(mask, cos + i), s = _mm512_maskz_loadu_ps(mask, sin + i);
      _mm512_mask_storeu_ps(row + i, mask, _mm512_fmsub_ps(first, c, _mm512_mul_ps(second, s)));
      _mm512_mask_storeu_ps(row + pairs + i, mask, _mm512_fmadd_ps(second, c, _mm512_mul_ps(first, s)));
    }
  }

  Layout layout_;
  Block<float> row_, cos_, sin_;
};

}  // namespace ropewalk
