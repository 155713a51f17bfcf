// Transposition of 64 x 64 bit matrices, kTile of them side by side.

#pragma once

#include "vector.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

// Matrices that are transposed together: one in each lane.
constexpr int kTile = kLanes;

// rows[i] lane j <-> rows[j] lane i, for kLanes rows.
inline void transpose_lanes(Vector* rows) {
  for (int step = kLanes / 2; step > 0; step /= 2) {
    Vector low, high;  // indices of __builtin_shuffle: kLanes and more are the second operand
    for (int i = 0; i < kLanes; ++i) {
      low[i] = i & step ? kLanes + i - step : i;
      high[i] = i & step ? kLanes + i : i + step;
    }
    for (int i = 0; i < kLanes; ++i) {
      if (i & step) continue;
      const Vector a = rows[i], b = rows[i + step];
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + step] = __builtin_shuffle(a, b, high);
    }
  }
}

// Bit i of rows[j] <-> bit j of rows[i], in each lane: blocks off the diagonal are swapped, in halves.
template <int kStep>
inline void swap_blocks(Vector* rows) {
  constexpr Word kMask = ~Word{0} / ((Word{1} << kStep) + 1);
  for (int base = 0; base < 64; base += 2 * kStep)
    for (int k = base; k < base + kStep; ++k) {
      const Vector swap = ((rows[k] >> kStep) ^ rows[k + kStep]) & kMask;
      rows[k] ^= swap << kStep;
      rows[k + kStep] ^= swap;
    }
}
inline void transpose_bits(Vector* rows) {
  swap_blocks<32>(rows);
  swap_blocks<16>(rows);
  swap_blocks<8>(rows);
  swap_blocks<4>(rows);
  swap_blocks<2>(rows);
  swap_blocks<1>(rows);
}

// The bit planes of kTile * 64 values: planes[p] lane q holds bit p of values 64 q .. 64 q + 63.
inline void values_to_planes(const Word* x, Vector* planes) {
  for (int j = 0; j < 64; j += kLanes) {
    for (int q = 0; q < kLanes; ++q) planes[j + q] = load<Vector>(x + 64 * q + j);
    transpose_lanes(planes + j);
  }
  transpose_bits(planes);
}

// The inverse; planes is overwritten.
inline void planes_to_values(Vector* planes, Word* x) {
  transpose_bits(planes);
  for (int j = 0; j < 64; j += kLanes) {
    transpose_lanes(planes + j);
    for (int q = 0; q < kLanes; ++q) store<Vector>(x + 64 * q + j, planes[j + q]);
  }
}

// The planes of the words [word, word + kTile) of x; values beyond count are 0.
inline void tile_planes(const Word* x, int64_t count, int64_t word, Vector* planes) {
  const int64_t left = count - 64 * word;
  if (left >= 64 * kTile) return values_to_planes(x + 64 * word, planes);
  Word padded[64 * kTile] = {};
  if (left > 0) std::memcpy(padded, x + 64 * word, left * sizeof(Word));
  values_to_planes(padded, planes);
}

// Stores the first `words` lanes.
inline void store_part(Word* out, Vector x, int64_t words, bool past) {
  if (words >= kTile) return put(out, x, past);
  for (int q = 0; q < words; ++q) out[q] = x[q];
}
inline Vector load_part(const Word* in, int64_t words) {
  if (words >= kTile) return load<Vector>(in);
  Vector x{};
  for (int q = 0; q < words; ++q) x[q] = in[q];
  return x;
}

}  // namespace
}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
