// The functions that isa/table.cc collects: those of one instruction set.

#pragma once

#include "../table.h"

namespace shareflow {
namespace SHAREFLOW_ISA {

extern const Engine engine;

void few_rows(const Word* a, int m, int64_t k, const Word* b, int64_t b_pitch, int64_t n, Word* c,
              int64_t c_pitch);
void few_dots(const Word* a, int m, int64_t k, const Word* b, int64_t b_pitch, int64_t n, Word* c,
              int64_t c_pitch);
void depthwise(const Word* const* x, const Word* const* w, int taps, int64_t channels, int64_t multiplier,
               Word* out);
void uniform(const Word key[2], Word execution, Word stream, Word block, Word* out, int64_t count);
void bit_planes(const Word* x, int64_t count, int64_t begin, int64_t end, int64_t width, Word* planes);
void from_bit_planes(const Word* planes, int64_t width, int64_t begin, int64_t end, Word* x, int64_t count);
void pack_bits(const Word* x, int64_t count, int64_t begin, int64_t end, Word* words);
void unpack_bits(const Word* words, int64_t begin, int64_t end, Word* x, int64_t count);
void group_products(const Word* a, int64_t count, int64_t begin, int64_t end, int64_t width, Groups groups,
                    Word* products);
void group_polynomials(const Word* alpha, int64_t count, int64_t begin, int64_t end, int64_t width,
                       Groups groups, bool leader, const Word* products, Word* out);
void gate_products(const Word* l, int64_t gates, int64_t t, int64_t begin, int64_t end, int64_t width,
                   int radix, bool last, Word* products);
void gate(const Word* m, const Word* l, const Word* products, int64_t gates, int64_t t, int64_t begin,
          int64_t end, int64_t width, int radix, bool last, bool leader, Word* out);
void truncate_opened(const Word* opened, const Word* t, const Word* v, int64_t begin, int64_t end, int shift,
                     bool leader, Word* out);
void multiply_bit(const Word* alpha, const Word* a, const Word* m, const Word* l, const Word* al,
                  int64_t begin, int64_t end, bool leader, Word* out);
void truncate_multiply_bit(const Word* opened, const Word* m, const Word* t, const Word* v, const Word* l,
                           const Word* tl, const Word* vl, int64_t begin, int64_t end, int shift, bool leader,
                           Word* out);
void shift_right(const Word* x, int64_t begin, int64_t end, int amount, Word* out);
void shift_left(const Word* x, int64_t begin, int64_t end, int amount, Word* out);

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
