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
template <typename A>
struct Tables {
  const A *cos = nullptr, *sin = nullptr;
  const A *other_cos = nullptr, *other_sin = nullptr;
  const bool* masks = nullptr;  // [heads, pairs]

  bool empty() const { return cos == nullptr; }
};

// Those of keys: decoding reads them at every step, so their bytes count; float16 rounds by an eighth of bfloat16.
template <typename T>
using KeyAngle = std::conditional_t<std::is_same_v<T, BFloat16>, Half, float>;

// Turns rows one at a time, sixteen pairs in registers.
template <typename T>
class Turner {
 public:
  explicit Turner(const Layout& layout) : layout_(layout) {}

  // to[0 ... padded) = factor * x turned by the angles of `position`, zero beyond the width.
  template <typename A>
  void turn(const T* x, T* to, const Tables<A>& tables, int64_t position, int64_t head, float factor = 1.0f) const {
    const Layout l = layout_;
    const __m512 times = _mm512_set1_ps(factor);
    const int64_t at = position * l.pairs;
    if (tables.empty()) {
      copy(x, to, 0, l.width, times);
    } else if (tables.masks == nullptr) {
      const A *cos = tables.cos + at, *sin = tables.sin + at;
      turn_by(x, to, times, [=](int64_t i, __mmask16 there) {
        return std::pair(widen(cos + i, there), widen(sin + i, there));
      });
    } else {
      const A *cos = tables.cos + at, *sin = tables.sin + at;
      const A *other_cos = tables.other_cos + at, *other_sin = tables.other_sin + at;
      const bool* masks = tables.masks + head * l.pairs;
      turn_by(x, to, times, [=](int64_t i, __mmask16 there) {
        const __m128i mask = _mm_maskz_loadu_epi8(there, masks + i);
        const __mmask16 picked = _mm_test_epi8_mask(mask, mask);
        return std::pair(_mm512_mask_mov_ps(widen(cos + i, there), picked, widen(other_cos + i, there)),
                         _mm512_mask_mov_ps(widen(sin + i, there), picked, widen(other_sin + i, there)));
      });
    }
    std::fill(to + l.width, to + l.padded, T(0.0f));
  }

  // The same by both angles of tables with masks, to two rows.
  template <typename A>
  void turn_both(const T* x, T* to, T* other, const Tables<A>& tables, int64_t position) const {
    const Layout l = layout_;
    const int64_t at = position * l.pairs;
    const A *cos = tables.cos + at, *sin = tables.sin + at;
    const A *other_cos = tables.other_cos + at, *other_sin = tables.other_sin + at;
    each_pairs([=](auto shape, int64_t i, __mmask16 there) {
      const Pairs pairs = read(shape, l, x, i, there);
      const __m512 c = widen(cos + i, there), s = widen(sin + i, there);
      write(shape, l, to, i, rotate(pairs, c, s), there);
      const __m512 d = widen(other_cos + i, there), t = widen(other_sin + i, there);
      write(shape, l, other, i, rotate(pairs, d, t), there);
    });
    for (T* row : {to, other}) {
      keep_others(x, row, _mm512_set1_ps(1.0f));
      std::fill(row + l.width, row + l.padded, T(0.0f));
    }
  }

 private:
  struct Pairs {
    __m512 first, second;
  };

  static Pairs rotate(const Pairs& x, __m512 cos, __m512 sin) {
    return {_mm512_fmsub_ps(x.first, cos, _mm512_mul_ps(x.second, sin)),
            _mm512_fmadd_ps(x.second, cos, _mm512_mul_ps(x.first, sin))};
  }

  template <typename F>
  void turn_by(const T* x, T* to, __m512 times, F angles) const {
    const Layout l = layout_;
    each_pairs([=](auto shape, int64_t i, __mmask16 there) {
      const auto [cos, sin] = angles(i, there);
      const Pairs turned = rotate(read(shape, l, x, i, there), cos, sin);
      write(shape, l, to, i, {_mm512_mul_ps(turned.first, times), _mm512_mul_ps(turned.second, times)}, there);
    });
    keep_others(x, to, times);
  }

  // Calls f(whether pairs are neighbours, the first of sixteen pairs, which of them are there). Every layout has a loop
  // of its own, and so have whole sixteens: with one that decides for every pair, a step of decoding over un-rotated
  // keys took a fifth longer.
  template <typename F>
  void each_pairs(F f) const {
    const int64_t pairs = layout_.pairs;
    if (layout_.interleaved) {
      for (int64_t i = 0; i < pairs; i += 16) f(std::true_type(), i, tail(pairs - i));
    } else if (pairs % 16 == 0) {
      for (int64_t i = 0; i < pairs; i += 16) f(std::false_type(), i, __mmask16{0xffff});
    } else {
      for (int64_t i = 0; i < pairs; i += 16) f(std::false_type(), i, tail(pairs - i));
    }
  }

  static Pairs read(std::true_type, const Layout& l, const T* x, int64_t i, __mmask16 there) {
    return read_neighbours(x + l.start + 2 * i, there);
  }
  static Pairs read(std::false_type, const Layout& l, const T* x, int64_t i, __mmask16 there) {
    return {widen(x + l.start + i, there), widen(x + l.start + l.pairs + i, there)};
  }
  static void write(std::true_type, const Layout& l, T* to, int64_t i, const Pairs& x, __mmask16 there) {
    write_neighbours(to + l.start + 2 * i, x, there);
  }
  static void write(std::false_type, const Layout& l, T* to, int64_t i, const Pairs& x, __mmask16 there) {
    narrow(to + l.start + i, x.first, there), narrow(to + l.start + l.pairs + i, x.second, there);
  }

  // What is not turned.
  void keep_others(const T* x, T* to, __m512 times) const {
    copy(x, to, 0, layout_.start, times);
    copy(x, to, layout_.start + 2 * layout_.pairs, layout_.width, times);
  }
  static void copy(const T* x, T* to, int64_t begin, int64_t end, __m512 times) {
    for (int64_t i = begin; i < end; i += 16) {
      narrow(to + i, _mm512_mul_ps(widen(x + i, tail(end - i)), times), tail(end - i));
    }
  }

  static Pairs read_neighbours(const BFloat16* x, __mmask16 there) {
    const __m512i words = _mm512_maskz_loadu_epi32(there, x);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000))))};
  }
  static void write_neighbours(BFloat16* to, const Pairs& x, __mmask16 there) {
    const __m512i first = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x.first));
    const __m512i second = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x.second));
    _mm512_mask_storeu_epi32(to, there, _mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
  }

  static Pairs read_neighbours(const float* x, __mmask16 there) {
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const int64_t left = 2 * __builtin_popcount(there);
    const __m512 low = widen(x, tail(left)), high = widen(x + 16, tail(std::max<int64_t>(0, left - 16)));
    return {_mm512_permutex2var_ps(low, even, high), _mm512_permutex2var_ps(low, odd, high)};
  }
  static void write_neighbours(float* to, const Pairs& x, __mmask16 there) {
    const auto [low, high] = interleave(x.first, x.second);
    const int64_t left = 2 * __builtin_popcount(there);
    narrow(to, low, tail(left)), narrow(to + 16, high, tail(std::max<int64_t>(0, left - 16)));
  }

  Layout layout_;
};

}  // namespace ropewalk
