// Many queries: keys and values are packed once, then blocks of ROWS queries go over them in blocks of COLUMNS keys.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>

#include "softmax.h"

namespace ropewalk {

constexpr int64_t ROWS = 128, COLUMNS = 256;

// Everything that queries of the call see, packed.
template <typename T>
struct Packed {
  struct Source {
    int64_t begin, panels;  // first key, a multiple of PANEL
    Block<T> data;          // [batch, heads, panels, padded * PANEL]
  };
  std::vector<Source> sources;
  int64_t begin, rows, panels;  // of the values: first key, keys, panels of columns
  Block<T> values;              // [batch, key heads, panels, rows * PANEL]

  explicit Packed(const Problem<T>& p) : Packed(p, reach(p, -1)) {}

  const T* keys(const Problem<T>& p, int64_t source, int64_t b, int64_t h, int64_t column) const {
    const Source& s = sources[source];
    const bool own = p.sources[source].own();
    const int64_t head = b * (own ? p.heads : p.key_heads) + (own ? h : h / p.group());
    return s.data.get() + (head * s.panels + (column - s.begin) / PANEL) * p.layout.padded * PANEL;
  }
  const T* value(const Problem<T>& p, int64_t b, int64_t h, int64_t panel, int64_t row) const {
    const int64_t head = b * p.key_heads + h / p.group();
    return values.get() + ((head * panels + panel) * rows + row - begin) * PANEL;
  }

 private:
  // The keys that a source's bands see, or all bands'.
  static std::pair<int64_t, int64_t> reach(const Problem<T>& p, int64_t source) {
    int64_t low = p.keys, high = 0;
    for (const Band& band : p.bands) {
      if (source >= 0 && band.source != source) continue;
      low = std::min<int64_t>(low, band.low[0]), high = std::max<int64_t>(high, band.high[p.queries - 1]);
    }
    low = round_down(std::min(low, high), PANEL);
    return {low, round_up(high - low, PANEL)};
  }

  Packed(const Problem<T>& p, std::pair<int64_t, int64_t> all)
      : begin(all.first),
        rows(all.second),
        panels(round_up(p.value_width, PANEL) / PANEL),
        values(p.batch * p.key_heads * panels * rows * PANEL) {
    for (size_t j = 0; j < p.sources.size(); ++j) {
      const auto [first, count] = reach(p, j);
      const int64_t heads = p.sources[j].own() ? p.heads : p.key_heads;
      sources.push_back({first, count / PANEL, Block<T>(p.batch * heads * count * p.layout.padded)});
    }
    for (size_t j = 0; j < p.sources.size(); ++j) pack_source(p, j);
    at::parallel_for(0, p.batch * p.key_heads * panels * (rows / PANEL), 16, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t part = i % (rows / PANEL), panel = i / (rows / PANEL) % panels;
        const int64_t head = i / (rows / PANEL) / panels, start = begin + part * PANEL;
        pack_values(p.value_row(head / p.key_heads, head % p.key_heads, start) + panel * PANEL, p.value_token,
                    p.keys - start, PANEL, p.value_width - panel * PANEL,
                    values.get() + ((head * panels + panel) * rows + part * PANEL) * PANEL);
      }
    });
  }

  void pack_source(const Problem<T>& p, size_t j) {
    const Source& s = sources[j];
    const Keys<T>& keys = p.sources[j];
    const int64_t heads = keys.own() ? p.heads : p.key_heads, padded = p.layout.padded;
    const Turner<T> turner(p.layout);
    at::parallel_for(0, p.batch * heads * s.panels, 8, [&](int64_t from, int64_t to) {
      Block<T> scratch(PANEL * padded);
      for (int64_t i = from; i < to; ++i) {
        const int64_t b = i / s.panels / heads, h = i / s.panels % heads;
        pack_keys(keys, b, keys.own() ? h / p.group() : h, h, s.begin + i % s.panels * PANEL, padded, turner,
                  scratch.get(), s.data.get() + i * padded * PANEL);
      }
    });
  }
};

// The scratch of one thread, and the work on one block of queries.
template <typename T>
class Rows {
 public:
  Rows(const Problem<T>& problem, const Packed<T>& packed)
      : p_(problem),
        packed_(packed),
        width_(packed.panels * PANEL),
        turner_(problem.layout),
        queries_(problem.maps.size() * ROWS * problem.layout.padded),
        scores_(ROWS * COLUMNS),
        edge_(ROWS * PANEL),
        weights_(ROWS * COLUMNS),
        sums_(ROWS * width_) {}

  // Queries [start, start + ROWS) of a head, or those that are left.
  void attend(int64_t b, int64_t h, int64_t start) {
    b_ = b, h_ = h, start_ = start;
    count_ = std::min(ROWS, p_.queries - start);
    rows_ = round_up(count_, 16);
    turn_queries();
    std::fill(sums_.get(), sums_.get() + rows_ * width_, 0.0f);
    std::fill(top_, top_ + rows_, NONE);
    std::fill(total_, total_ + rows_, 0.0f);
    int64_t low = p_.keys, high = 0;
    for (const Band& band : p_.bands) {
      low = std::min<int64_t>(low, band.low[start]);
      high = std::max<int64_t>(high, band.high[start + count_ - 1]);
    }
    for (int64_t column = round_down(low, PANEL); column < high; column += COLUMNS) {
      step(column, std::min(COLUMNS, round_up(high - column, PANEL)));
    }
    for (int64_t r = 0; r < count_; ++r) {
      p_.write(b, h, start + r, sums_.get() + r * width_, total_[r], top_[r]);
    }
  }

 private:
  void turn_queries() {
    const int64_t padded = p_.layout.padded;
    for (size_t map = 0; map < p_.maps.size(); ++map) {
      T* to = queries_.get() + map * ROWS * padded;
      for (int64_t r = 0; r < count_; ++r) {
        turner_.turn(p_.query_row(b_, h_, start_ + r), to + r * padded, p_.maps[map], start_ + r, h_,
                     p_.factor(start_ + r));
      }
      std::fill(to + count_ * padded, to + rows_ * padded, T(0.0f));
    }
  }

  // Scores of the columns [column, column + columns), softmax, and the values weighted.
  void step(int64_t column, int64_t columns) {
    bool seen = false;
    for (int64_t i = 0; i < columns; i += PANEL) seen |= score(column + i, scores_.get() + i);
    if (!seen) return;
    const float rate = p_.rate();
    for (int64_t r = 0; r < rows_; ++r) {
      if (p_.softcap > 0) soften(scores_.get() + r * COLUMNS, columns, p_.scale, p_.softcap);
      weigh(scores_.get() + r * COLUMNS, columns, rate, weights_.get() + r * COLUMNS, top_[r], total_[r],
            sums_.get() + r * width_, width_);
    }
    for (int64_t panel = 0; panel < packed_.panels; ++panel) {
      const int64_t width = std::min(PANEL, round_up(p_.value_width - panel * PANEL, 32));
      multiply(rows_, width, columns, weights_.get(), COLUMNS, packed_.value(p_, b_, h_, panel, column), PANEL,
               sums_.get() + panel * PANEL, width_, true);
    }
  }

  void multiply_keys(const Band& band, int64_t column, int64_t first, int64_t last, float* to, int64_t stride) {
    const int64_t padded = p_.layout.padded;
    multiply(last - first, PANEL, padded, queries_.get() + (band.map * ROWS + first) * padded, padded,
             packed_.keys(p_, band.source, b_, h_, column), PANEL, to, stride, false);
  }

  // Scores of one panel, minus infinity where no band is; false when no band is there at all.
  bool score(int64_t column, float* to) {
    const int64_t stop = column + PANEL;
    bool some = false;
    for (const Band& band : p_.bands) {
      const int32_t *low = band.low + start_, *high = band.high + start_;
      if (high[count_ - 1] <= column || low[0] >= stop) continue;
      if (low[count_ - 1] <= column && high[0] >= stop) {
        multiply_keys(band, column, 0, rows_, to, COLUMNS);
        return true;
      }
      some = true;
    }
    clear(to);
    if (!some) return false;
    for (const Band& band : p_.bands) score_edge(band, column, to);
    return true;
  }

  void clear(float* to) {
    const __m512 none = _mm512_set1_ps(NONE);
    for (int64_t r = 0; r < rows_; ++r, to += COLUMNS) {
      for (int64_t i = 0; i < PANEL; i += 16) _mm512_storeu_ps(to + i, none);
    }
  }

  // A band that is in part of a panel: the rows that it is in are multiplied, and what is in the band copied.
  void score_edge(const Band& band, int64_t column, float* to) {
    const int32_t *low = band.low + start_, *high = band.high + start_;
    const int64_t stop = column + PANEL;
    int64_t first = std::partition_point(high, high + count_, [&](int32_t x) { return x <= column; }) - high;
    const int64_t last = std::partition_point(low, low + count_, [&](int32_t x) { return x < stop; }) - low;
    if (first >= last) return;
    const int64_t begin = round_down(first, 16);
    multiply_keys(band, column, begin, round_up(last, 16), edge_.get(), PANEL);
    for (int64_t r = first; r < last; ++r) {
      const int64_t from = std::max<int64_t>(low[r] - column, 0), until = std::min<int64_t>(high[r] - column, PANEL);
      if (from >= until) continue;
      const uint64_t bits = (until == 64 ? ~0ull : (1ull << until) - 1) & ~((1ull << from) - 1);
      const float* scores = edge_.get() + (r - begin) * PANEL;
      for (int64_t i = 0; i < PANEL; i += 16) {
        _mm512_mask_storeu_ps(to + r * COLUMNS + i, static_cast<__mmask16>(bits >> i), _mm512_loadu_ps(scores + i));
      }
    }
  }

  const Problem<T>& p_;
  const Packed<T>& packed_;
  int64_t width_;
  int64_t b_ = 0, h_ = 0, start_ = 0, count_ = 0, rows_ = 0;
  Turner<T> turner_;
  Block<T> queries_;
  Block<float> scores_, edge_;
  Block<T> weights_;
  Block<float> sums_;
  float top_[ROWS], total_[ROWS];
};

template <typename T>
void prefill(const Problem<T>& p) {
  const Packed<T> packed(p);
  const int64_t blocks = (p.queries + ROWS - 1) / ROWS, tasks = p.batch * p.heads * blocks;
  std::atomic<int64_t> next{0};
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t from, int64_t to) {
    for (int64_t worker = from; worker < to; ++worker) {
      Rows<T> rows(p, packed);
      for (int64_t task = next++; task < tasks; task = next++) {
        const int64_t head = task / blocks, block = blocks - 1 - task % blocks;  // the longest rows of a head first
        rows.attend(head / p.heads, head % p.heads, block * ROWS);
      }
    }
    at::native::cpublas::brgemm_release(std::is_same_v<T, BFloat16>);
  });
}

}  // namespace ropewalk
