// Matrix products in plain C++: 4 x 2 sums in registers.

#include "functions.h"
#include "panels.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

constexpr int kRows = 4;
constexpr int kColumns = 2;

template <int kR>
void block(const Word* a, int64_t k, const Word* b, int64_t n, Word* c, int64_t c_pitch, bool accumulate) {
  Word sum[kR][kColumns] = {};
  for (int64_t i = 0; i < k; ++i)
    for (int r = 0; r < kR; ++r)
      for (int q = 0; q < kColumns; ++q) sum[r][q] += a[r * kPitch + i] * b[i * kColumns + q];
  for (int r = 0; r < kR; ++r)
    for (int q = 0; q < kColumns && q < n; ++q)
      c[r * c_pitch + q] = sum[r][q] + (accumulate ? c[r * c_pitch + q] : 0);
}

using Block = void (*)(const Word*, int64_t, const Word*, int64_t, Word*, int64_t, bool);
constexpr Block kBlocks[kRows + 1] = {nullptr, &block<1>, &block<2>, &block<3>, &block<4>};

void multiply(const Word* a, int rows, int64_t k, const Word* packed, int64_t n, Word* c, int64_t c_pitch,
              bool accumulate) {
  for (int64_t j = 0; j < n; j += kColumns, packed += k * kColumns)
    kBlocks[rows](a, k, packed, n - j, c + j, c_pitch, accumulate);
}

}  // namespace

const Engine engine = {kRows, kDepth, kPitch, 256, &packed_words<kColumns>, &pack<kColumns>, &multiply};

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
