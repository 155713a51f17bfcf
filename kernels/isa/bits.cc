// Between values and bit-sliced words.

#include "functions.h"
#include "transpose.h"

namespace shareflow {
namespace SHAREFLOW_ISA {

void bit_planes(const Word* x, int64_t count, int64_t begin, int64_t end, int64_t width, Word* planes) {
  const bool past = past_caches(planes, width, 64 * width);
  for (int64_t word = begin; word < end; word += kTile) {
    Vector tile[64];
    tile_planes(x, count, word, tile);
    for (int p = 0; p < 64; ++p) store_part(planes + p * width + word, tile[p], end - word, past);
  }
  settle(past);
}

void from_bit_planes(const Word* planes, int64_t width, int64_t begin, int64_t end, Word* x, int64_t count) {
  for (int64_t word = begin; word < end; word += kTile) {
    Vector tile[64];
    for (int p = 0; p < 64; ++p) tile[p] = load_part(planes + p * width + word, end - word);
    const int64_t left = least(count, 64 * end) - 64 * word;
    if (left >= 64 * kTile) {
      planes_to_values(tile, x + 64 * word);
    } else {
      Word values[64 * kTile];
      planes_to_values(tile, values);
      std::memcpy(x + 64 * word, values, left * sizeof(Word));
    }
  }
}

void pack_bits(const Word* x, int64_t count, int64_t begin, int64_t end, Word* words) {
  for (int64_t word = begin; word < end; ++word) {
    const Word* from = x + 64 * word;
    if (64 * (word + 1) > count) {
      words[word] = 0;
      for (int64_t j = 0; j < count - 64 * word; ++j) words[word] |= (from[j] & 1) << j;
      continue;
    }
    Vector bits{};
    for (int j = 0; j < 64; j += kLanes) bits |= (load<Vector>(from + j) & 1) << j;
    bits <<= Lanes<Vector>::index();
    Word whole = 0;
    for (int q = 0; q < kLanes; ++q) whole |= bits[q];
    words[word] = whole;
  }
}

void unpack_bits(const Word* words, int64_t begin, int64_t end, Word* x, int64_t count) {
  for (int64_t word = begin; word < end; ++word) {
    Word* to = x + 64 * word;
    if (64 * (word + 1) > count) {
      for (int64_t j = 0; j < count - 64 * word; ++j) to[j] = words[word] >> j & 1;
      continue;
    }
    const Vector bits = fill<Vector>(words[word]) >> Lanes<Vector>::index();
    for (int j = 0; j < 64; j += kLanes) store<Vector>(to + j, bits >> j & 1);
  }
}

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
