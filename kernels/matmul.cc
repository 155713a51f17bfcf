// ShareflowMatmul: the matrix product mod 2^64, batches broadcast.

#include <algorithm>
#include <deque>

#include "gemm.h"
#include "isa.h"
#include "op.h"
#include "parallel.h"

namespace shareflow {
namespace {

// The row-major copy of a small matrix.
std::vector<Word> dense(Matrix a, int64_t rows, int64_t columns) {
  std::vector<Word> out(rows * columns);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) out[i * columns + j] = a.data[i * a.row + j * a.column];
  return out;
}

constexpr int64_t kFew = 8;  // rows up to which b is not packed

// c [m, n] = a [m, k] b [k, n] for m <= kFew, with one of b's strides 1; the rows of c are `pitch` apart.
void multiply_few(Matrix a, Matrix b, int64_t m, int64_t k, int64_t n, Word* c, int64_t c_pitch) {
  std::vector<Word> copy;
  const Word* rows = a.data;
  if (a.column != 1 || a.row != k) {
    copy = dense(a, m, k);
    rows = copy.data();
  }
  const bool by_rows = b.column == 1;
  const int64_t grain = std::max<int64_t>(64, kWorkForThread / std::max<int64_t>(m * k, 1));
  parallel_ranges(n, grain, 64, [&](int64_t begin, int64_t end) {
    constexpr int64_t kColumns = 2048;  // of c, that stay in the L1 cache
    for (int64_t j = begin; j < end; j += kColumns) {
      const int64_t columns = std::min(end - j, kColumns);
      for (int64_t i = 0; i < m; i += 4) {
        const int some = static_cast<int>(std::min<int64_t>(4, m - i));
        Word* to = c + i * c_pitch + j;
        if (by_rows)
          kernels().few_rows(rows + i * k, some, k, b.data + j, b.row, columns, to, c_pitch);
        else
          kernels().few_dots(rows + i * k, some, k, b.data + j * b.column, b.column, columns, to, c_pitch);
      }
    }
  });
}

class Matmul {
 public:
  static constexpr const char* kName = "ShareflowMatmul";
  static constexpr const char* kInputs[] = {"a: int64", "b: int64"};
  static constexpr const char* kAttributes[] = {"transpose_a: bool = false", "transpose_b: bool = false"};

  static void shape(ShapeInference& s) {
    s.rank_at_least(0, 2);
    s.rank_at_least(1, 2);
    s.output_unknown();
  }

  explicit Matmul(const Attributes& attributes)
      : transpose_a_(attributes.boolean("transpose_a")), transpose_b_(attributes.boolean("transpose_b")) {}

  void compute(Context& context) const {
    const Input a = context.input(0), b = context.input(1);
    require(a.shape.size() >= 2 && b.shape.size() >= 2, "matmul takes tensors of rank 2 or more, not shapes ",
            to_string(a.shape), " and ", to_string(b.shape));
    const size_t rank_a = a.shape.size(), rank_b = b.shape.size();
    const int64_t rows_a = a.shape[rank_a - 2], columns_a = a.shape[rank_a - 1];
    const int64_t rows_b = b.shape[rank_b - 2], columns_b = b.shape[rank_b - 1];
    const int64_t m = transpose_a_ ? columns_a : rows_a, k = transpose_a_ ? rows_a : columns_a;
    const int64_t k_b = transpose_b_ ? columns_b : rows_b, n = transpose_b_ ? rows_b : columns_b;
    require(k == k_b, "matmul takes equal inner dimensions, not ", k, " and ", k_b, " (shapes ",
            to_string(a.shape), " and ", to_string(b.shape), ")");

    // The batch dimensions, aligned to the right; a size of 1 is repeated.
    const size_t batch_rank = std::max(rank_a, rank_b) - 2;
    Shape result(batch_rank), step_a(batch_rank), step_b(batch_rank);
    int64_t size_a = m * k, size_b = k * n, batches = 1;
    for (size_t i = batch_rank; i-- > 0;) {
      const int64_t at_a = i + rank_a - 2 < batch_rank ? 1 : a.shape[i + rank_a - 2 - batch_rank];
      const int64_t at_b = i + rank_b - 2 < batch_rank ? 1 : b.shape[i + rank_b - 2 - batch_rank];
      require(at_a == at_b || at_a == 1 || at_b == 1,
              "matmul takes batch dimensions that broadcast, not those of ", to_string(a.shape), " and ",
              to_string(b.shape));
      result[i] = at_a == 1 ? at_b : at_a;
      step_a[i] = at_a == 1 ? 0 : size_a;
      step_b[i] = at_b == 1 ? 0 : size_b;
      size_a *= at_a;
      size_b *= at_b;
      batches *= result[i];
    }
    Shape shape = result;
    shape.push_back(m);
    shape.push_back(n);
    Word* c = context.output(shape);
    if (batches * m * n == 0) return;

    // A batch of a against one b is one taller matrix.
    if (!transpose_a_ && rank_b == 2) return products({{a.data, b.data, c}}, batches * m, k, n);
    std::vector<Operands> list;
    std::vector<int64_t> index(batch_rank, 0);
    for (int64_t item = 0; item < batches; ++item) {
      const Word *at_a = a.data, *at_b = b.data;
      for (size_t i = 0; i < batch_rank; ++i) at_a += index[i] * step_a[i], at_b += index[i] * step_b[i];
      list.push_back({at_a, at_b, c + item * m * n});
      for (size_t i = batch_rank; i-- > 0;) {
        if (++index[i] < result[i]) break;
        index[i] = 0;
      }
    }
    products(list, m, k, n);
  }

 private:
  struct Operands {
    const Word* a;
    const Word* b;
    Word* c;
  };

  void products(const std::vector<Operands>& list, int64_t m, int64_t k, int64_t n) const {
    const auto matrix_a = [&](const Word* data) {
      return transpose_a_ ? Matrix{data, 1, m} : Matrix{data, k, 1};
    };
    const auto matrix_b = [&](const Word* data) {
      return transpose_b_ ? Matrix{data, 1, k} : Matrix{data, n, 1};
    };
    if (m <= kFew && k > 0 && n > 1) {
      for (const Operands& item : list) multiply_few(matrix_a(item.a), matrix_b(item.b), m, k, n, item.c, n);
    } else if (n == 1 && k > 0) {  // a vector: c^T = b^T a^T
      for (const Operands& item : list) {
        const Matrix a = matrix_a(item.a);
        multiply_few(Matrix{item.b, k, 1}, Matrix{a.data, a.column, a.row}, 1, k, m, item.c, m);
      }
    } else {
      std::deque<MatrixRows> rows;
      std::vector<Product> all;
      for (const Operands& item : list) {
        rows.emplace_back(matrix_a(item.a));
        all.push_back({&rows.back(), matrix_b(item.b), item.c});
      }
      multiply(all, m, k, n, n);
    }
  }

  bool transpose_a_, transpose_b_;
};

const Registration<Matmul> registration;

}  // namespace
}  // namespace shareflow
