// A small thread pool. The calling thread takes part, and concurrent callers share the workers.

#pragma once

#include <cstdint>
#include <functional>

namespace shareflow {

// The threads that work on one call at most, the caller included: SHAREFLOW_THREADS, or all CPUs.
int thread_count();

// Runs task(0) .. task(count - 1), in any order, on several threads, and waits for all. Tasks do not throw.
void parallel(int64_t count, const std::function<void(int64_t)>& task);

// Splits [0, size) in ranges of at least `grain` elements, aligned to `align`, and runs body(begin, end) on
// each. One range, on the calling thread, when the whole is small.
void parallel_ranges(int64_t size, int64_t grain, int64_t align,
                     const std::function<void(int64_t, int64_t)>& body);

}  // namespace shareflow
