#include "gemm.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "isa.h"
#include "parallel.h"

namespace shareflow {
namespace {

// Working memory of a thread, kept from call to call, aligned to cache lines.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { std::free(data_); }
  Word* reserve(int64_t words) {
    if (words > size_) {
      std::free(data_);
      size_ = 0;
      data_ = static_cast<Word*>(std::aligned_alloc(64, (words * sizeof(Word) + 63) / 64 * 64));
      if (data_ == nullptr) std::abort();  // tasks of the pool cannot throw
      size_ = words;
    }
    return data_;
  }

 private:
  Word* data_ = nullptr;
  int64_t size_ = 0;
};

int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }
int64_t parts(int64_t x, int64_t unit) { return (x + unit - 1) / unit; }

// Rows [i0, i1) and columns [j0, j1) of a product.
void multiply_part(const Engine& engine, const Product& product, int64_t i0, int64_t i1, int64_t k,
                   int64_t j0, int64_t j1, int64_t c_pitch) {
  thread_local Scratch packed, staged;
  const int64_t depth = std::min(k, engine.depth), n = j1 - j0;
  Word* b = packed.reserve(engine.packed_words(depth, n));
  Word* a = staged.reserve(engine.rows * engine.pitch);
  for (int64_t k0 = 0; k0 < k; k0 += engine.depth) {
    const int64_t kk = std::min(engine.depth, k - k0);
    const Matrix part{product.b.data + k0 * product.b.row + j0 * product.b.column, product.b.row,
                      product.b.column};
    engine.pack(part, kk, n, b);
    for (int64_t i = i0; i < i1; i += engine.rows) {
      const int rows = static_cast<int>(std::min<int64_t>(engine.rows, i1 - i));
      product.rows->stage(i, rows, k0, kk, a, engine.pitch);
      engine.multiply(a, rows, kk, b, n, product.c + i * c_pitch + j0, c_pitch, k0 > 0);
    }
  }
}

}  // namespace

void MatrixRows::stage(int64_t row, int rows, int64_t k0, int64_t k, Word* out, int64_t pitch) const {
  const Word* from = a_.data + row * a_.row + k0 * a_.column;
  if (a_.column == 1) {
    for (int r = 0; r < rows; ++r) std::memcpy(out + r * pitch, from + r * a_.row, k * sizeof(Word));
  } else {
    for (int64_t i = 0; i < k; ++i)
      for (int r = 0; r < rows; ++r) out[r * pitch + i] = from[r * a_.row + i * a_.column];
  }
}

void multiply(const std::vector<Product>& products, int64_t m, int64_t k, int64_t n, int64_t c_pitch) {
  if (products.empty() || m == 0 || n == 0) return;
  if (k == 0) {
    for (const Product& product : products)
      for (int64_t i = 0; i < m; ++i) std::memset(product.c + i * c_pitch, 0, n * sizeof(Word));
    return;
  }
  // The engine for deep products pads to its tiles: small ones are faster without.
  const Engine& engine = k >= 48 && m >= 16 && n >= 16 ? deep_engine() : shallow_engine();
  // A block of B is packed for each part of the rows, and rows are staged for each part of the columns, so
  // parts are large; but there should be a few for each thread.
  const int64_t count = static_cast<int64_t>(products.size());
  int64_t columns = std::min(engine.columns, round_up(n, 32));
  const int64_t usual = std::max(192, 16 * engine.rows);
  int64_t rows = round_up(parts(m, std::max<int64_t>(1, (m + usual / 2) / usual)), engine.rows);
  const int64_t work = count * m * k * n;
  if (work >= 2 * kWorkForThread) {
    const int64_t wanted = std::min<int64_t>(2 * thread_count(), work / kWorkForThread);
    while (count * parts(m, rows) * parts(n, columns) < wanted) {
      if (columns >= rows && columns > 64)
        columns = round_up(columns / 2, 32);
      else if (rows > 4 * engine.rows)
        rows = round_up(rows / 2, engine.rows);
      else if (columns > 64)
        columns = round_up(columns / 2, 32);
      else
        break;
    }
  }
  const int64_t down = parts(m, rows), across = parts(n, columns), tasks = count * down * across;
  const auto run = [&](int64_t task) {
    const int64_t i = task / across % down * rows, j = task % across * columns;
    multiply_part(engine, products[task / (down * across)], i, std::min(m, i + rows), k, j,
                  std::min(n, j + columns), c_pitch);
  };
  if (work < 2 * kWorkForThread) {
    for (int64_t task = 0; task < tasks; ++task) run(task);
  } else {
    parallel(tasks, run);
  }
}

}  // namespace shareflow
