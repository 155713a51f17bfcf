#include "parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

namespace shareflow {
namespace {

struct Job {
  const std::function<void(int64_t)>* task;
  int64_t count;
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> done{0};
  std::mutex mutex;
  std::condition_variable finished;

  // Takes tasks until none is left to take.
  void work() {
    int64_t ran = 0;
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count; ++ran) (*task)(i);
    if (ran > 0 && done.fetch_add(ran, std::memory_order_acq_rel) + ran == count) {
      std::lock_guard<std::mutex> lock(mutex);
      finished.notify_one();
    }
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    finished.wait(lock, [this] { return done.load(std::memory_order_acquire) == count; });
  }
};

class Pool {
 public:
  // Never destroyed: workers may still wait when the process ends.
  static Pool& instance() {
    static Pool* pool = new Pool;
    return *pool;
  }

  int threads() const { return threads_; }

  void run(const std::shared_ptr<Job>& job) {
    const int64_t helpers = std::min<int64_t>(job->count - 1, threads_ - 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (int64_t i = 0; i < helpers; ++i) queue_.push_back(job);
    }
    if (helpers == 1)
      wake_.notify_one();
    else
      wake_.notify_all();
    job->work();
    job->wait();
  }

 private:
  Pool() : threads_(limit()) {
    for (int i = 1; i < threads_; ++i) std::thread([this] { serve(); }).detach();
  }

  static int limit() {
    int cpus = static_cast<int>(std::thread::hardware_concurrency());
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
    const char* text = std::getenv("SHAREFLOW_THREADS");
    const int asked = text == nullptr ? 0 : std::atoi(text);
    return std::max(1, std::min(asked > 0 ? asked : cpus, 256));
  }

  void serve() {
    for (;;) {
      std::shared_ptr<Job> job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [this] { return !queue_.empty(); });
        job = std::move(queue_.front());
        queue_.pop_front();
      }
      job->work();
    }
  }

  const int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> queue_;
};

}  // namespace

int thread_count() { return Pool::instance().threads(); }

void parallel(int64_t count, const std::function<void(int64_t)>& task) {
  if (count <= 1 || thread_count() == 1) {
    for (int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  auto job = std::make_shared<Job>();
  job->task = &task;
  job->count = count;
  Pool::instance().run(job);
}

void parallel_ranges(int64_t size, int64_t grain, int64_t align,
                     const std::function<void(int64_t, int64_t)>& body) {
  if (size <= 0) return;
  // A few ranges a thread, so that a thread that is late does not hold up the others.
  const int64_t wanted = std::min<int64_t>(size / std::max<int64_t>(grain, 1), int64_t{4} * thread_count());
  if (wanted <= 1 || thread_count() == 1) return body(0, size);
  const int64_t step = ((size + wanted - 1) / wanted + align - 1) / align * align;
  parallel((size + step - 1) / step, [&](int64_t i) { body(i * step, std::min(size, (i + 1) * step)); });
}

}  // namespace shareflow
