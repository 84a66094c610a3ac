// A few queries: keys and values are read once, as they lie. Scores are computed transposed, with keys in rows, so that
// keys are not packed.
#pragma once

#include <ATen/Parallel.h>

#include <numeric>

#include "softmax.h"

namespace ropewalk {

constexpr int64_t FEW = 64;         // queries times query heads of a key head
constexpr int64_t BLOCK = 256;      // keys
constexpr int64_t SHORTEST = 1024;  // keys that are worth a thread
constexpr int64_t TOGETHER = 8;     // key heads that use the same angles while these are in the cache of the core

// The running result of the queries of one key head over some of the keys; lanes are (query, head of the group).
struct Partial {
  explicit Partial(int64_t lanes, int64_t width) : top(lanes), total(lanes), sums(lanes * width) {
    std::fill(top.get(), top.get() + lanes, NONE);
    std::fill(total.get(), total.get() + lanes, 0.0f);
    std::fill(sums.get(), sums.get() + lanes * width, 0.0f);
  }
  Block<float> top, total, sums;  // top in powers of two
};

template <typename T>
class Few {
 public:
  // `together`: key heads in a call of `attend`, at most.
  Few(const Problem<T>& problem, int64_t together)
      : p_(problem),
        real_(problem.queries * problem.group()),
        lanes_(round_up(real_, 16)),
        width_(round_up(problem.value_width, PANEL)),
        turner_(problem.layout),
        packed_(together * problem.bands.size() * 2 * problem.layout.padded * lanes_),
        rows_(2 * BLOCK * problem.layout.padded),
        scores_(BLOCK * lanes_),
        turned_(lanes_ * BLOCK),
        weights_(lanes_ * BLOCK),
        values_(BLOCK * PANEL),
        limits_(2 * lanes_) {
    std::fill(weights_.get(), weights_.get() + lanes_ * BLOCK, T(0.0f));
  }

  // Keys [begin, end) of the heads [first, first + count), numbered over the batch, in every band; one part of each.
  void attend(int64_t first, int64_t count, int64_t begin, int64_t end, Partial* parts) {
    for (head_ = 0; head_ < count; ++head_) turn_queries(first + head_);
    for (const Band& band : p_.bands) {
      const int64_t low = std::max<int64_t>(begin, band.low[0]);
      const int64_t high = std::min<int64_t>(end, band.high[p_.queries - 1]);
      for (int64_t start = low; start < high; start += BLOCK) {
        for (head_ = 0; head_ < count; ++head_) {
          take(first + head_);
          step(band, start, std::min(BLOCK, high - start), parts[head_]);
        }
      }
    }
  }

 private:
  // Queries as columns, [padded / pairs][lanes][pairs], for every band. Keys under two maps are turned by both, once
  // for all heads; then each of the two has columns of its own, with the pairs that the head's mask leaves to it.
  void turn_queries(int64_t head) {
    take(head);
    const int64_t padded = p_.layout.padded;
    Block<T> flat(2 * lanes_ * padded);
    T* other = flat.get() + lanes_ * padded;
    for (size_t i = 0; i < p_.bands.size(); ++i) {
      const Band& band = p_.bands[i];
      const bool* masks = p_.sources[band.source].tables.masks;
      std::fill(flat.get(), flat.get() + 2 * lanes_ * padded, T(0.0f));
      for (int64_t lane = 0; lane < real_; ++lane) {
        const int64_t t = lane / p_.group(), h = k_ * p_.group() + lane % p_.group();
        T* row = flat.get() + lane * padded;
        turner_.turn(p_.query_row(b_, h, t), row, p_.maps[band.map], t, h, p_.factor(t));
        if (masks != nullptr) split(row, other + lane * padded, masks + h * p_.layout.pairs);
      }
      pack(flat.get(), columns(i, 0));
      if (masks != nullptr) pack(other, columns(i, 1));
    }
  }

  void take(int64_t head) { b_ = head / p_.key_heads, k_ = head % p_.key_heads; }

  // Moves the pairs that a mask picks from one row to another.
  void split(T* row, T* other, const bool* mask) const {
    const Layout& l = p_.layout;
    for (int64_t i = 0; i < l.pairs; ++i) {
      if (!mask[i]) continue;
      const int64_t first = l.start + (l.interleaved ? 2 * i : i), second = first + (l.interleaved ? 1 : l.pairs);
      for (const int64_t j : {first, second}) other[j] = row[j], row[j] = T(0.0f);
    }
  }

  void pack(const T* flat, T* to) const {
    const int64_t words = p_.layout.padded * sizeof(T) / 4;
    for (int64_t i = 0; i < lanes_; i += 16) {
      for (int64_t j = 0; j < words; j += 16) {
        transpose(reinterpret_cast<const int32_t*>(flat) + i * words + j, words,
                  reinterpret_cast<int32_t*>(to) + j * lanes_ + i, lanes_);
      }
    }
  }

  T* columns(int64_t band, int64_t variant) const {
    return packed_.get() + (2 * (head_ * p_.bands.size() + band) + variant) * p_.layout.padded * lanes_;
  }

  // `count` keys from `start` on: as they lie where that will do, else turned, in `rows_`. Under two maps the second
  // kind follows the first, a block behind it. Returns where they are and how far apart.
  std::pair<const T*, int64_t> rows(const Keys<T>& keys, int64_t start, int64_t count) {
    const int64_t padded = p_.layout.padded;
    if (keys.tables.empty() && count % 32 == 0 && p_.layout.width == padded) {
      return {keys.row(b_, k_, start), keys.stride_token};
    }
    T *to = rows_.get(), *other = to + BLOCK * padded;
    for (int64_t i = 0; i < count; ++i) {
      const T* row = keys.row(b_, k_, start + i);
      const int64_t position = start + i - keys.first;
      if (keys.own()) {
        turner_.turn_both(row, to + i * padded, other + i * padded, keys.tables, position);
      } else {
        turner_.turn(row, to + i * padded, keys.tables, position, 0);
      }
    }
    const int64_t end = round_up(count, 32) * padded;
    std::fill(to + count * padded, to + end, T(0.0f));
    if (keys.own()) std::fill(other + count * padded, other + end, T(0.0f));
    return {to, padded};
  }

  // Asks for keys, values and angles that will be read soon; many at once would be waited for.
  void fetch(const Keys<T>& keys, int64_t start, int64_t count) const {
    const Tables<KeyAngle<T>>& tables = keys.tables;
    for (int64_t i = start; i < std::min({start + count, keys.first + keys.count, p_.keys}); ++i) {
      fetch_row(keys.row(b_, k_, i), p_.layout.width);
      fetch_row(p_.value_row(b_, k_, i), p_.value_width);
      if (tables.empty() || head_ > 0) continue;  // the other heads find them
      for (const auto* angles : {tables.cos, tables.sin, tables.other_cos, tables.other_sin}) {
        if (angles != nullptr) fetch_row(angles + (i - keys.first) * p_.layout.pairs, p_.layout.pairs);
      }
    }
  }
  template <typename N>
  static void fetch_row(const N* row, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / sizeof(N)) _mm_prefetch(row + i, _MM_HINT_T1);
  }

  void step(const Band& band, int64_t start, int64_t count, Partial& partial) {
    const int64_t size = round_up(count, 32), number = &band - p_.bands.data();
    const Keys<T>& keys = p_.sources[band.source];
    const auto [key, stride] = rows(keys, start, count);
    score(key, stride, size, columns(number, 0), false);
    if (keys.own()) score(key + BLOCK * stride, stride, size, columns(number, 1), true);
    mask(band, start, count, size);
    weigh_lanes(size, keys, start + count, partial);
    for (int64_t column = 0; column < p_.value_width; column += PANEL) {
      pack_values(p_.value_row(b_, k_, start) + column, p_.value_token, count, size, p_.value_width - column,
                  values_.get());
      multiply(lanes_, PANEL, size, weights_.get(), BLOCK, values_.get(), PANEL, partial.sums.get() + column, width_,
               true);
    }
  }

  void score(const T* key, int64_t stride, int64_t size, const T* columns, bool add) {
    multiply(size, lanes_, p_.layout.padded, key, stride, columns, lanes_, scores_.get(), lanes_, add);
  }

  // Minus infinity where a key is not in the band of a lane's query, and beyond the last key.
  void mask(const Band& band, int64_t start, int64_t count, int64_t size) {
    const __m512 none = _mm512_set1_ps(NONE);
    for (int64_t i = count; i < size; ++i) {
      for (int64_t lane = 0; lane < lanes_; lane += 16) _mm512_storeu_ps(scores_.get() + i * lanes_ + lane, none);
    }
    const int64_t last = p_.queries - 1;
    if (band.low[last] <= start && band.high[0] >= start + count) return;
    int32_t* limits = limits_.get();
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      const int64_t t = std::min(lane / p_.group(), last);
      limits[lane] = band.low[t], limits[lanes_ + lane] = band.high[t];
    }
    for (int64_t lane = 0; lane < lanes_; lane += 16) {
      const __m512i low = _mm512_loadu_si512(limits + lane), high = _mm512_loadu_si512(limits + lanes_ + lane);
      for (int64_t i = 0; i < count; ++i) {
        const __m512i key = _mm512_set1_epi32(static_cast<int32_t>(start + i));
        const __mmask16 out = _mm512_cmplt_epi32_mask(key, low) | _mm512_cmpge_epi32_mask(key, high);
        _mm512_mask_storeu_ps(scores_.get() + i * lanes_ + lane, out, none);
      }
    }
  }

  // Scores with keys in columns, [lanes][BLOCK], and their softmax; meanwhile the keys from `next` on are fetched.
  void weigh_lanes(int64_t size, const Keys<T>& keys, int64_t next, Partial& partial) {
    for (int64_t lane = 0; lane < lanes_; lane += 16) {
      for (int64_t i = 0; i < size; i += 16) {
        if (lane == 0) fetch(keys, next + i, 16);
        transpose(reinterpret_cast<const int32_t*>(scores_.get() + i * lanes_ + lane), lanes_,
                  reinterpret_cast<int32_t*>(turned_.get() + lane * BLOCK + i), BLOCK);
      }
    }
    for (int64_t lane = 0; lane < real_; ++lane) {
      float* scores = turned_.get() + lane * BLOCK;
      if (p_.softcap > 0) soften(scores, size, p_.scale, p_.softcap);
      weigh(scores, size, p_.rate(), weights_.get() + lane * BLOCK, partial.top.get()[lane], partial.total.get()[lane],
            partial.sums.get() + lane * width_, width_);
    }
  }

  const Problem<T>& p_;
  int64_t real_, lanes_, width_;
  int64_t head_ = 0, b_ = 0, k_ = 0;  // head_ of those in the call
  Turner<T> turner_;
  Block<T> packed_, rows_;
  Block<float> scores_, turned_;
  Block<T> weights_, values_;
  Block<int32_t> limits_;
};

// Adds the partial results of one key head together, in order, and writes them; they lie `apart` from each other.
template <typename T>
void join(const Problem<T>& p, int64_t b, int64_t k, Partial* parts, int64_t count, int64_t apart, int64_t width) {
  const int64_t group = p.group();
  for (int64_t lane = 0; lane < p.queries * group; ++lane) {
    float top = NONE, total = 0.0f;
    for (int64_t i = 0; i < count; ++i) top = std::max(top, parts[i * apart].top.get()[lane]);
    float* sums = parts[0].sums.get() + lane * width;
    for (int64_t i = 0; i < count && top != NONE; ++i) {
      const Partial& part = parts[i * apart];
      const float share = std::exp2(part.top.get()[lane] - top);
      const float* more = part.sums.get() + lane * width;
      total += share * part.total.get()[lane];
      for (int64_t j = 0; j < width; ++j) sums[j] = i == 0 ? share * sums[j] : sums[j] + share * more[j];
    }
    p.write(b, k * group + lane % group, lane / group, sums, total, top);
  }
}

template <typename T>
bool is_few(const Problem<T>& p) {
  return p.queries * p.group() <= FEW;
}

template <typename T>
void decode(const Problem<T>& p) {
  const int64_t heads = p.batch * p.key_heads, threads = at::get_num_threads();
  // As many parts of every head as give each thread as much.
  const int64_t even = threads / std::gcd(threads, heads);
  const int64_t parts = std::clamp<int64_t>(p.keys / SHORTEST, 1, even);
  const int64_t share = round_up((p.keys + parts - 1) / parts, BLOCK);
  const int64_t lanes = round_up(p.queries * p.group(), 16), width = round_up(p.value_width, PANEL);
  const bool turns = std::any_of(p.sources.begin(), p.sources.end(), [](auto& keys) { return !keys.tables.empty(); });
  const int64_t together = turns ? std::min(TOGETHER, heads) : 1;
  std::vector<Partial> partials;  // [parts][heads]
  for (int64_t i = 0; i < heads * parts; ++i) partials.emplace_back(lanes, width);
  at::parallel_for(0, heads * parts, 1, [&](int64_t from, int64_t to) {
    Few<T> few(p, together);
    for (int64_t i = from; i < to;) {
      const int64_t head = i % heads, begin = i / heads * share;
      const int64_t count = std::min({together, to - i, heads - head});
      few.attend(head, count, begin, std::min(p.keys, begin + share), &partials[i]);
      i += count;
    }
    at::native::cpublas::brgemm_release(std::is_same_v<T, BFloat16>);
  });
  at::parallel_for(0, heads, 16, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) join(p, i / p.key_heads, i % p.key_heads, &partials[i], parts, heads, width);
  });
}

}  // namespace ropewalk
