// Matrix products of any size, cut in blocks for the caches and the threads, on the engine in use.

#pragma once

#include <vector>

#include "table.h"

namespace shareflow {

// The rows of a left operand: a matrix, or the windows of an image.
class Rows {
 public:
  virtual ~Rows() = default;
  // Puts the elements [k0, k0 + k) of the rows [row, row + rows) at out, `pitch` words from row to row.
  virtual void stage(int64_t row, int rows, int64_t k0, int64_t k, Word* out, int64_t pitch) const = 0;
};

class MatrixRows : public Rows {
 public:
  explicit MatrixRows(Matrix a) : a_(a) {}
  void stage(int64_t row, int rows, int64_t k0, int64_t k, Word* out, int64_t pitch) const override;

 private:
  Matrix a_;
};

// c [m, n] = rows [m, k] b [k, n]; the rows of c lie `pitch` words apart.
struct Product {
  const Rows* rows;
  Matrix b;
  Word* c;
};

// All the products, of one size.
void multiply(const std::vector<Product>& products, int64_t m, int64_t k, int64_t n, int64_t c_pitch);

// Products and sums that are worth another thread.
constexpr int64_t kWorkForThread = 500'000;

}  // namespace shareflow
