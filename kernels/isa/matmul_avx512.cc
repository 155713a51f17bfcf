// Matrix products with the 64-bit multiplication of AVX-512 DQ (vpmullq).

#include <immintrin.h>

#include "functions.h"
#include "panels.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

constexpr int kRows = 12;  // 24 accumulators, two registers of b, the rest for broadcasts
constexpr int kColumns = 16;

template <int kR, int kV>
void block(const Word* a, int64_t k, const Word* b, int64_t n, Word* c, int64_t c_pitch, bool accumulate) {
  __m512i sum[kR][kV];
  for (int r = 0; r < kR; ++r)
    for (int v = 0; v < kV; ++v) sum[r][v] = _mm512_setzero_si512();
  for (int64_t i = 0; i < k; ++i) {
    __m512i row[kV];
    for (int v = 0; v < kV; ++v) row[v] = _mm512_loadu_si512(b + (i * kV + v) * 8);
#pragma GCC unroll 12
    for (int r = 0; r < kR; ++r) {
      const __m512i x = _mm512_set1_epi64(a[r * kPitch + i]);
      for (int v = 0; v < kV; ++v) sum[r][v] = _mm512_add_epi64(sum[r][v], _mm512_mullo_epi64(x, row[v]));
    }
  }
  for (int v = 0; v < kV; ++v) {
    const __mmask8 mask = n - 8 * v >= 8 ? 0xFF : (1 << (n - 8 * v)) - 1;
    for (int r = 0; r < kR; ++r) {
      Word* to = c + r * c_pitch + 8 * v;
      if (accumulate) sum[r][v] = _mm512_add_epi64(sum[r][v], _mm512_maskz_loadu_epi64(mask, to));
      _mm512_mask_storeu_epi64(to, mask, sum[r][v]);
    }
  }
}

using Block = void (*)(const Word*, int64_t, const Word*, int64_t, Word*, int64_t, bool);
constexpr Block kBlocks[kRows + 1][2] = {
    {nullptr, nullptr},
    {&block<1, 1>, &block<1, 2>},
    {&block<2, 1>, &block<2, 2>},
    {&block<3, 1>, &block<3, 2>},
    {&block<4, 1>, &block<4, 2>},
    {&block<5, 1>, &block<5, 2>},
    {&block<6, 1>, &block<6, 2>},
    {&block<7, 1>, &block<7, 2>},
    {&block<8, 1>, &block<8, 2>},
    {&block<9, 1>, &block<9, 2>},
    {&block<10, 1>, &block<10, 2>},
    {&block<11, 1>, &block<11, 2>},
    {&block<12, 1>, &block<12, 2>},
};

void multiply(const Word* a, int rows, int64_t k, const Word* packed, int64_t n, Word* c, int64_t c_pitch,
              bool accumulate) {
  for (int64_t j = 0; j < n; j += kColumns) {
    const int wide = n - j > 8;
    kBlocks[rows][wide](a, k, packed, n - j, c + j, c_pitch, accumulate);
    packed += k * 8 * (wide + 1);
  }
}

}  // namespace

const Engine engine = {kRows, kDepth, kPitch, 256, &packed_words<kColumns>, &pack<kColumns>, &multiply};

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
