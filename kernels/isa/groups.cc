// The first step of a comparison: (G, P) of each group of bits.

#include "functions.h"
#include "transpose.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

// Tiles worked on together: long runs in each of the many rows, the limit; their planes fit the L2 cache.
constexpr int kRun = 128 / kTile;

template <int kGroup>
void products_of(const Word* a, int64_t count, int64_t begin, int64_t end, int64_t width, Groups shape,
                 Word* out) {
  constexpr int kSets = 1 << kGroup;
  const int64_t row = shape.groups * width;
  const bool past = past_caches(out, width, (kSets - 1) * row);
  Vector planes[kRun][64];
  for (int64_t start = begin; start < end; start += kRun * kTile) {
    const int run = static_cast<int>(least(kRun, (end - start + kTile - 1) / kTile));
    for (int r = 0; r < run; ++r) tile_planes(a, count, start + r * kTile, planes[r]);
    for (int g = 0; g < shape.groups; ++g)
      for (int r = 0; r < run; ++r) {
        const int64_t word = start + r * kTile;
        Vector product[kSets];
        product[0] = ~Vector{};
        for (int i = 0; i < kGroup; ++i) {
          const int bit = g * kGroup + i;
          const Vector plane = bit < shape.bits ? planes[r][bit] : Vector{};
          for (int s = 0; s < 1 << i; ++s) product[s | 1 << i] = product[s] & plane;
        }
        Word* to = out + g * width + word;
        for (int s = 1; s < kSets; ++s) store_part(to + (s - 1) * row, product[s], end - word, past);
      }
  }
  settle(past);
}

template <int kGroup>
void polynomials_of(const Word* alpha, int64_t count, int64_t begin, int64_t end, int64_t width, Groups shape,
                    bool leader, const Word* products, Word* out) {
  constexpr int kSets = 1 << kGroup;
  const int64_t row = shape.groups * width;
  Vector planes[kRun][64];
  for (int64_t start = begin; start < end; start += kRun * kTile) {
    const int run = static_cast<int>(least(kRun, (end - start + kTile - 1) / kTile));
    for (int r = 0; r < run; ++r) tile_planes(alpha, count, start + r * kTile, planes[r]);
    for (int g = 0; g < shape.groups; ++g)
      for (int r = 0; r < run; ++r) {
        const int64_t word = start + r * kTile;
        const Word* from = products + g * width + word;
        // share[S] is a share of AND_{i in S} a_i & AND_{j folded} p_j; bits fold from the top down.
        Vector share[kSets];
        share[0] = fill<Vector>(leader ? ~Word{0} : 0);
        for (int s = 1; s < kSets; ++s) share[s] = load_part(from + (s - 1) * row, end - word);
        Vector generate{};
        for (int i = kGroup - 1; i >= 0; --i) {
          const int bit = g * kGroup + i;
          const Vector plane = bit < shape.bits ? planes[r][bit] : ~Vector{};
          generate ^= plane & share[1 << i];
          for (int s = 0; s < 1 << i; ++s) share[s] = share[s | 1 << i] ^ (plane & share[s]);
        }
        Word* to = out + g * width + word;
        store_part(to, generate, end - word, false);
        store_part(to + row, share[0], end - word, false);
      }
  }
}

}  // namespace

void group_products(const Word* a, int64_t count, int64_t begin, int64_t end, int64_t width, Groups shape,
                    Word* out) {
  switch (shape.group) {
    case 2:
      return products_of<2>(a, count, begin, end, width, shape, out);
    case 3:
      return products_of<3>(a, count, begin, end, width, shape, out);
    case 4:
      return products_of<4>(a, count, begin, end, width, shape, out);
    case 5:
      return products_of<5>(a, count, begin, end, width, shape, out);
    default:
      return products_of<6>(a, count, begin, end, width, shape, out);
  }
}

void group_polynomials(const Word* alpha, int64_t count, int64_t begin, int64_t end, int64_t width,
                       Groups shape, bool leader, const Word* products, Word* out) {
  switch (shape.group) {
    case 2:
      return polynomials_of<2>(alpha, count, begin, end, width, shape, leader, products, out);
    case 3:
      return polynomials_of<3>(alpha, count, begin, end, width, shape, leader, products, out);
    case 4:
      return polynomials_of<4>(alpha, count, begin, end, width, shape, leader, products, out);
    case 5:
      return polynomials_of<5>(alpha, count, begin, end, width, shape, leader, products, out);
    default:
      return polynomials_of<6>(alpha, count, begin, end, width, shape, leader, products, out);
  }
}

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
