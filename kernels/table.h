// What each instruction set implements. The files under isa/ are compiled once for each set, with its target
// flags; the ops reach them only through these tables, so no instruction runs that the CPU does not have.

#pragma once

#include <cstddef>
#include <cstdint>

namespace shareflow {

using Word = uint64_t;

// A matrix b(i, j) = data[i * row + j * column].
struct Matrix {
  const Word* data;
  int64_t row;
  int64_t column;
};

// Products of panels: a block of B is packed once, then met by panels of rows of A, staged row after row.
struct Engine {
  int rows;         // of a panel of A, at most
  int64_t depth;    // of a block: its part of the inner dimension, at most
  int64_t pitch;    // words from one row of a staged panel to the next
  int64_t columns;  // of a block of B, at most

  // Words that hold a packed block of B of this depth and width.
  int64_t (*packed_words)(int64_t k, int64_t n);
  // Packs b [k, n].
  void (*pack)(Matrix b, int64_t k, int64_t n, Word* packed);
  // c [rows, n] (= or +=) a [rows, k] b; row i of a begins at a + i * pitch and may be read beyond k.
  void (*multiply)(const Word* a, int rows, int64_t k, const Word* packed, int64_t n, Word* c,
                   int64_t c_pitch, bool accumulate);
};

// The parameters of the group kernels.
struct Groups {
  int bits;   // that carry
  int group;  // bits of a group
  int groups;
};

struct Table {
  const char* name;
  const Engine* engine;

  // c [m, n] = a [m, k] b [k, n] for m <= 4, reading the rows of b once; row i of a begins at a + i * k.
  void (*few_rows)(const Word* a, int m, int64_t k, const Word* b, int64_t b_pitch, int64_t n, Word* c,
                   int64_t c_pitch);
  // c [m, n] = a [m, k] b^T for b [n, k] and m <= 4.
  void (*few_dots)(const Word* a, int m, int64_t k, const Word* b, int64_t b_pitch, int64_t n, Word* c,
                   int64_t c_pitch);
  // out [channels * multiplier] = sum over taps of x[t][c] * w[t][c * multiplier + m].
  void (*depthwise)(const Word* const* x, const Word* const* w, int taps, int64_t channels,
                    int64_t multiplier, Word* out);

  // Elements [2 * block, 2 * block + count) of a stream.
  void (*uniform)(const Word key[2], Word execution, Word stream, Word block, Word* out, int64_t count);

  // On planes of `width` words, for the words [begin, end); values beyond count are 0 or not written.
  void (*bit_planes)(const Word* x, int64_t count, int64_t begin, int64_t end, int64_t width, Word* planes);
  void (*from_bit_planes)(const Word* planes, int64_t width, int64_t begin, int64_t end, Word* x,
                          int64_t count);
  void (*pack_bits)(const Word* x, int64_t count, int64_t begin, int64_t end, Word* words);
  void (*unpack_bits)(const Word* words, int64_t begin, int64_t end, Word* x, int64_t count);

  void (*group_products)(const Word* a, int64_t count, int64_t begin, int64_t end, int64_t width,
                         Groups groups, Word* products);
  void (*group_polynomials)(const Word* alpha, int64_t count, int64_t begin, int64_t end, int64_t width,
                            Groups groups, bool leader, const Word* products, Word* out);
  // Gate t of `gates`, words [begin, end).
  void (*gate_products)(const Word* l, int64_t gates, int64_t t, int64_t begin, int64_t end, int64_t width,
                        int radix, bool last, Word* products);
  void (*gate)(const Word* m, const Word* l, const Word* products, int64_t gates, int64_t t, int64_t begin,
               int64_t end, int64_t width, int radix, bool last, bool leader, Word* out);

  // Elements [begin, end), begin a multiple of 64.
  void (*truncate_opened)(const Word* opened, const Word* t, const Word* v, int64_t begin, int64_t end,
                          int shift, bool leader, Word* out);
  void (*multiply_bit)(const Word* alpha, const Word* a, const Word* m, const Word* l, const Word* al,
                       int64_t begin, int64_t end, bool leader, Word* out);
  void (*truncate_multiply_bit)(const Word* opened, const Word* m, const Word* t, const Word* v,
                                const Word* l, const Word* tl, const Word* vl, int64_t begin, int64_t end,
                                int shift, bool leader, Word* out);
  void (*shift_right)(const Word* x, int64_t begin, int64_t end, int amount, Word* out);
  void (*shift_left)(const Word* x, int64_t begin, int64_t end, int amount, Word* out);
};

// The number of products of masks that a gate needs: see gate_products.cc.
inline int gate_product_count(int radix, bool last) {
  int count = 0;
  for (int k = 0; k + 1 < radix; ++k) count += (1 << (radix - 1 - k)) - 1;
  const int used = last ? radix - 1 : radix;  // the last gate does not use P_0
  return count + (1 << used) - 1 - used;
}

namespace portable {
extern const Table table;
}
#ifdef SHAREFLOW_X86
namespace avx2 {
extern const Table table;
}
namespace avx512 {
extern const Table table;
}
#endif
#ifdef SHAREFLOW_AMX
namespace amx {
extern const Engine engine;
}
// The code of the AMX engine with its tile instructions carried out in software: for tests.
namespace amx_emulated {
extern const Engine engine;
}
#endif

}  // namespace shareflow
