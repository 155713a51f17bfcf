// Matrix products on AMX int8 tiles.
//
// Words are split in 8 bytes ("limbs"), a = sum_l a_l 2^(8 l), so that mod 2^64
//   a b = sum_{s < 8} 2^(8 s) sum_{l <= s} a_l b_(s-l):
// 36 products of byte matrices, summed in 32 bits for each s. Of sum s only the low 64 - 8 s bits count, so a
// 32-bit wrap matters for s < 4 alone, where sums stay below 4 * depth * 255^2 < 2^32.

#include <immintrin.h>

#include "functions.h"
#include "tiles.h"
#include "vector.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

constexpr int kRows = 32;
constexpr int64_t kDepth = 512;
constexpr int64_t kPitch = kDepth + 8;
constexpr int kInner = 64;  // bytes of a tile's row: the inner dimension of one tile product
constexpr int kTileBytes = 1024;
constexpr int kStepBytes = 8 * kTileBytes;  // the eight limbs of a 16 x 64 block of a, or 64 x 16 block of b

inline int64_t steps(int64_t k) { return (k + kInner - 1) / kInner; }

// Byte l of eight words -> word l of the result.
inline __m512i split_limbs(__m512i words) {
  alignas(64) static constexpr uint8_t kIndex[64] = {
      0,  8,  16, 24, 32, 40, 48, 56, 1,  9,  17, 25, 33, 41, 49, 57, 2,  10, 18, 26, 34, 42,
      50, 58, 3,  11, 19, 27, 35, 43, 51, 59, 4,  12, 20, 28, 36, 44, 52, 60, 5,  13, 21, 29,
      37, 45, 53, 61, 6,  14, 22, 30, 38, 46, 54, 62, 7,  15, 23, 31, 39, 47, 55, 63};
  return _mm512_permutexvar_epi8(_mm512_load_si512(kIndex), words);
}

// Puts word l of `limbs` at byte `offset` of tile l.
inline void scatter(__m512i limbs, uint8_t* tiles, int offset) {
  alignas(64) Word words[8];
  _mm512_store_si512(words, limbs);
  for (int l = 0; l < 8; ++l) std::memcpy(tiles + l * kTileBytes + offset, &words[l], 8);
}

// 16 rows of a staged panel -> for each step of the inner dimension, eight tiles of a's bytes.
void pack_rows(const Word* a, int rows, int64_t k, uint8_t* packed) {
  for (int64_t step = 0; step < steps(k); ++step, packed += kStepBytes)
    for (int r = 0; r < 16; ++r)
      for (int c = 0; c < kInner; c += 8) {
        const int64_t left = r < rows ? k - step * kInner - c : 0;
        const __mmask8 mask = left >= 8 ? 0xFF : left > 0 ? (1 << left) - 1 : 0;
        const __m512i words = _mm512_maskz_loadu_epi64(mask, a + (mask ? r * kPitch + step * kInner + c : 0));
        scatter(split_limbs(words), packed, r * 64 + c);
      }
}

int64_t packed_words(int64_t k, int64_t n) { return (n + 15) / 16 * steps(k) * (kStepBytes / 8); }

// Panels of 16 columns; for each step eight tiles, whose row r holds, column by column, the bytes of the rows
// 4r .. 4r+3 of b.
void pack(Matrix b, int64_t k, int64_t n, Word* out) {
  uint8_t* packed = reinterpret_cast<uint8_t*>(out);
  for (int64_t j = 0; j < n; j += 16)
    for (int64_t step = 0; step < steps(k); ++step, packed += kStepBytes) {
      alignas(64) Word block[16][kInner] = {};  // one row for each column of b
      const int64_t columns = least(16, n - j), depth = least(kInner, k - step * kInner);
      const Word* from = b.data + step * kInner * b.row + j * b.column;
      for (int64_t i = 0; i < depth; ++i)
        for (int64_t q = 0; q < columns; ++q) block[q][i] = from[i * b.row + q * b.column];
      for (int i = 0; i < kInner; i += 4)
        for (int q = 0; q < 16; q += 2) {
          const __m256i even = _mm256_load_si256(reinterpret_cast<const __m256i*>(&block[q][i]));
          const __m256i odd = _mm256_load_si256(reinterpret_cast<const __m256i*>(&block[q + 1][i]));
          const __m512i words = _mm512_inserti64x4(_mm512_castsi256_si512(even), odd, 1);
          scatter(split_limbs(words), packed, i / 4 * 64 + q * 4);
        }
    }
}

// sum[16][32] at `column` += the 16 x 16 words of a tile, times 2^(8 s).
inline void add_tile(const uint32_t* tile, int s, Word* sum) {
  for (int r = 0; r < 16; ++r)
    for (int h = 0; h < 16; h += 8) {
      const __m256i half = _mm256_load_si256(reinterpret_cast<const __m256i*>(tile + r * 16 + h));
      const __m512i words = _mm512_sll_epi64(_mm512_cvtepu32_epi64(half), _mm_cvtsi32_si128(8 * s));
      Word* to = sum + r * 32 + h;
      _mm512_storeu_si512(to, _mm512_add_epi64(_mm512_loadu_si512(to), words));
    }
}

// sum [32][32] = two row tiles of a by two column tiles of b, the second ones if kLower, kRight.
template <bool kLower, bool kRight>
void block(const uint8_t* a, const uint8_t* b, int64_t count, Word* sum) {
  const uint8_t *a1 = a + count * kStepBytes, *b1 = b + count * kStepBytes;
  alignas(64) uint32_t tile[256];
  std::memset(sum, 0, 32 * 32 * sizeof(Word));
  for (int s = 0; s < 8; ++s) {
    SHAREFLOW_TILE_ZERO(0);
    if (kRight) SHAREFLOW_TILE_ZERO(1);
    if (kLower) SHAREFLOW_TILE_ZERO(2);
    if (kLower && kRight) SHAREFLOW_TILE_ZERO(3);
    for (int64_t step = 0; step < count; ++step)
      for (int l = 0; l <= s; ++l) {
        const int64_t of_a = step * kStepBytes + l * kTileBytes,
                      of_b = step * kStepBytes + (s - l) * kTileBytes;
        SHAREFLOW_TILE_LOAD(4, a + of_a);
        SHAREFLOW_TILE_LOAD(6, b + of_b);
        SHAREFLOW_TILE_MULTIPLY(0, 4, 6);
        if (kRight) {
          SHAREFLOW_TILE_LOAD(7, b1 + of_b);
          SHAREFLOW_TILE_MULTIPLY(1, 4, 7);
        }
        if (kLower) {
          SHAREFLOW_TILE_LOAD(5, a1 + of_a);
          SHAREFLOW_TILE_MULTIPLY(2, 5, 6);
        }
        if (kLower && kRight) SHAREFLOW_TILE_MULTIPLY(3, 5, 7);
      }
    SHAREFLOW_TILE_STORE(0, tile);
    add_tile(tile, s, sum);
    if (kRight) {
      SHAREFLOW_TILE_STORE(1, tile);
      add_tile(tile, s, sum + 16);
    }
    if (kLower) {
      SHAREFLOW_TILE_STORE(2, tile);
      add_tile(tile, s, sum + 16 * 32);
    }
    if (kLower && kRight) {
      SHAREFLOW_TILE_STORE(3, tile);
      add_tile(tile, s, sum + 16 * 32 + 16);
    }
  }
}

void multiply(const Word* a, int rows, int64_t k, const Word* packed, int64_t n, Word* c, int64_t c_pitch,
              bool accumulate) {
  alignas(64) static thread_local uint8_t rows_of_a[2 * (kDepth / kInner) * kStepBytes];
  const int64_t count = steps(k);
  const bool lower = rows > 16;
  pack_rows(a, rows < 16 ? rows : 16, k, rows_of_a);
  if (lower) pack_rows(a + 16 * kPitch, rows - 16, k, rows_of_a + count * kStepBytes);
  const uint8_t* b = reinterpret_cast<const uint8_t*>(packed);
  const Tiles tiles;
  for (int64_t j = 0; j < n; j += 32, b += 2 * count * kStepBytes) {
    alignas(64) Word sum[32 * 32];
    const bool right = n - j > 16;
    if (lower && right)
      block<true, true>(rows_of_a, b, count, sum);
    else if (lower)
      block<true, false>(rows_of_a, b, count, sum);
    else if (right)
      block<false, true>(rows_of_a, b, count, sum);
    else
      block<false, false>(rows_of_a, b, count, sum);
    const int64_t columns = least(32, n - j);
    for (int r = 0; r < rows; ++r)
      for (int64_t q = 0; q < columns; ++q) {
        Word& to = c[r * c_pitch + j + q];
        to = sum[r * 32 + q] + (accumulate ? to : 0);
      }
  }
}

}  // namespace

const Engine engine = {kRows, kDepth, kPitch, 256, &packed_words, &pack, &multiply};

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
