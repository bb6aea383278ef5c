// Counts the bytes of CPU tensors while it lives.
#pragma once

#include <atomic>

#include <c10/core/CPUAllocator.h>

namespace serpentine::testing {

class CountingAllocator final : public c10::Allocator {
 public:
  CountingAllocator() : real_(c10::GetCPUAllocator()) {
    now_ = 0;
    c10::SetCPUAllocator(this, /*priority=*/255);
  }
  ~CountingAllocator() override { c10::SetCPUAllocator(real_, /*priority=*/255); }
  int64_t peak() const { return peak_; }  // above what was there before
  int64_t now() const { return now_; }    // the same, at this moment

  c10::DataPtr allocate(size_t size) override {
    auto* block = new Block{real_->allocate(size), static_cast<int64_t>(size)};
    now_ += block->size;
    int64_t seen = peak_;
    while (seen < now_ && !peak_.compare_exchange_weak(seen, now_)) {
    }
    void* data = block->memory.get();
    return {data, block, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }

 private:
  struct Block {
    c10::DataPtr memory;
    int64_t size;
  };

  // tensors may outlive the counter, so the sums are the program's
  static void release(void* context) {
    auto* block = static_cast<Block*>(context);
    now_ -= block->size;
    delete block;
  }

  c10::Allocator* real_;
  static inline std::atomic<int64_t> now_{0};
  std::atomic<int64_t> peak_{0};
};

}  // namespace serpentine::testing
