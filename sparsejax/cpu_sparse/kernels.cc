// Convolutions with sparse kernels and dense, feature-major inputs, for XLA on CPU.
//
// Feature-major layout: x is (channels, height, width, batch) and y is (outputs, height, width,
// batch). A matrix product is a convolution over one pixel. The kernel is stored in compressed
// rows, one row for each output; every nonzero has its value and the offset of its input from the
// position of the result:
//
//   y[o, p] = bias[o] + sum_k values[k] * x[offsets[k] + start(p)],  k in rows[o] .. rows[o + 1]
//
// Positions that are adjacent in y are adjacent in x too: the examples of a batch, and the pixels
// of a row. Each nonzero is therefore broadcast and multiplied by contiguous vectors of positions.
// No inputs are gathered, whatever the sparsity pattern. A tile of R rows of pixels by V vectors is
// accumulated in registers.
//
// Padding and strides are resolved beforehand: the input is copied into a scratch buffer of phases
// (channels, row phases, column phases, rows, columns, batch). Phase (a, b) has every stride-th row
// and column of the padded image, beginning at (a, b), so that the inputs of adjacent positions are
// adjacent. Without padding and strides x is read in place.
//
// A matrix product also takes x in batch-first layout (batch, channels). Every tile then transposes
// its positions of all channels into a buffer that fits in the cache, and offsets are channels.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

// In two steps, since GCC before 10 has no __has_builtin to ask.
#if defined(__has_builtin)
#define SPARSEJAX_HAS_BUILTIN(name) __has_builtin(name)
#else
#define SPARSEJAX_HAS_BUILTIN(name) 0
#endif

namespace ffi = xla::ffi;

namespace {

// Vectors

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kTileVectors = 8;  // accumulators of a tile: half of AVX2's registers
// Multiply-adds, or elements to copy, below which one thread is faster than several.
constexpr int64_t kMinParallelWork = 1 << 18;
constexpr int64_t kTasksPerThread = 4;

// A vector of N floats without alignment.
template <int N>
struct Vector {
  typedef float type __attribute__((vector_size(N * sizeof(float)), aligned(4), may_alias));
};

template <int N>
using Floats = typename Vector<N>::type;

// A product, as its tiles read it. Strides are in elements.
struct Product {
  const int32_t* rows;
  const int32_t* offsets;
  const float* values;
  const float* bias;
  bool relu;
  int64_t x_row;     // stride between rows of pixels of x
  int64_t y_row;     // stride between rows of pixels of y
  int64_t y_output;  // stride between outputs of y
};

// Computes outputs first .. last - 1 for a tile: R rows of pixels, each of V vectors of N floats.
//
// The first `skipped` floats of each row are not stored. With kTransposed x is a transposed tile
// (channels, N * V) and offsets are channels.
template <int N, int R, int V, bool kTransposed = false>
void Tile(const Product& p, int64_t first, int64_t last, const float* x, float* y, int skipped) {
  using Lanes = Floats<N>;
  for (int64_t o = first; o < last; ++o) {
    Lanes sums[R][V];
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) sums[r][v] = Lanes{} + p.bias[o];
    for (int32_t k = p.rows[o]; k < p.rows[o + 1]; ++k) {
      const float* from = x + int64_t{p.offsets[k]} * (kTransposed ? N * V : 1);
      const float weight = p.values[k];
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v)
          sums[r][v] += weight * *reinterpret_cast<const Lanes*>(from + r * p.x_row + v * N);
    }
    float* to = y + o * p.y_output;
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) {
        Lanes sum = sums[r][v];
        if (p.relu) sum = sum < 0.0f ? Lanes{} : sum;  // keeps NaN
        float* at = to + r * p.y_row + v * N;
        if (V == 1 && skipped)  // only single vectors overlap others
          for (int i = skipped; i < N; ++i) at[i] = sum[i];
        else
          *reinterpret_cast<Lanes*>(at) = sum;
      }
  }
}

// Computes a single position of outputs first .. last - 1.
//
// Several partial sums run at once, since additions to one sum would wait for each other.
void Dot(const Product& p, int64_t first, int64_t last, const float* x, float* y, int) {
  constexpr int kChains = 8;
  for (int64_t o = first; o < last; ++o) {
    float sums[kChains] = {p.bias[o]};
    int32_t k = p.rows[o];
    const int32_t end = p.rows[o + 1];
    for (; k + kChains <= end; k += kChains)
      for (int i = 0; i < kChains; ++i) sums[i] += p.values[k + i] * x[p.offsets[k + i]];
    for (int i = 0; k < end; ++k, ++i) sums[i] += p.values[k] * x[p.offsets[k]];
    const float sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
                      ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    y[o * p.y_output] = p.relu && sum < 0.0f ? 0.0f : sum;
  }
}

// Tiles

using TileFunction = void (*)(const Product&, int64_t, int64_t, const float*, float*, int);

// Adjacent positions of a row that one tile computes: `vectors` vectors of `lanes` floats. All but
// the first `skipped` are stored.
struct Segment {
  int64_t begin;
  int lanes, vectors, skipped;
};

template <int N, int R>
TileFunction TileOf(int vectors) {
  static_assert(kTileVectors == 8);
  if constexpr (R == 1)
    if (vectors == 8) return Tile<N, R, 8>;
  if constexpr (R <= 2)
    if (vectors == 4) return Tile<N, R, 4>;
  return vectors == 2 ? Tile<N, R, 2> : Tile<N, R, 1>;
}

template <int N>
TileFunction TileOf(int rows, int vectors) {
  if (rows == 4) return TileOf<N, 4>(vectors);
  return rows == 2 ? TileOf<N, 2>(vectors) : TileOf<N, 1>(vectors);
}

TileFunction TileOf(const Segment& segment, int rows) {
#if defined(__AVX512F__)
  if (segment.lanes == 16) return TileOf<16>(rows, segment.vectors);
#endif
#if defined(__AVX__)
  if (segment.lanes == 8) return TileOf<8>(rows, segment.vectors);
#endif
  if (segment.lanes == 4) return TileOf<4>(rows, segment.vectors);
  return rows == 4 ? Tile<1, 4, 1> : rows == 2 ? Tile<1, 2, 1> : Dot;
}

template <int N>
TileFunction TransposedTileOf(int vectors) {
  if (vectors == 8) return Tile<N, 1, 8, true>;
  if (vectors == 4) return Tile<N, 1, 4, true>;
  return vectors == 2 ? Tile<N, 1, 2, true> : Tile<N, 1, 1, true>;
}

TileFunction TransposedTileOf(const Segment& segment) {
#if defined(__AVX512F__)
  if (segment.lanes == 16) return TransposedTileOf<16>(segment.vectors);
#endif
#if defined(__AVX__)
  if (segment.lanes == 8) return TransposedTileOf<8>(segment.vectors);
#endif
  if (segment.lanes == 4) return TransposedTileOf<4>(segment.vectors);
  return TransposedTileOf<1>(segment.vectors);
}

// Divides a row of n positions into segments: the largest possible first, and at the end one vector
// that overlaps the segment before it and does not store what that segment stores. Two threads may
// compute both segments at once, and not even to the same values: GCC does not fuse the
// multiply-adds of a single vector.
std::vector<Segment> Segments(int64_t n) {
  int lanes = kLanes;
  while (lanes > n) lanes = lanes > 4 ? lanes / 2 : 1;
  std::vector<Segment> segments;
  int64_t begin = 0;
  for (int vectors = lanes == 1 ? 1 : kTileVectors; vectors; vectors /= 2)
    for (; n - begin >= vectors * lanes; begin += vectors * lanes)
      segments.push_back({begin, lanes, vectors, 0});
  if (begin < n) segments.push_back({n - lanes, lanes, 1, static_cast<int>(lanes - (n - begin))});
  return segments;
}

// Threads

// Calls function(0) .. function(count - 1) on the threads of XLA's pool and on the calling thread.
//
// Every thread takes the next task until none is left. The calling thread takes part, and waits
// only for tasks that other threads have begun. It never waits for a thread of the pool to become
// free, which could deadlock, because it may itself be one of them.
template <typename Function>
void ForEach(ffi::ThreadPool& pool, int64_t count, bool is_serial, const Function& function) {
  const int64_t helpers = is_serial ? 0 : std::min(pool.num_threads(), count) - 1;
  if (helpers <= 0) {
    for (int64_t i = 0; i < count; ++i) function(i);
    return;
  }
  struct State {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable all_done;
  };
  auto state = std::make_shared<State>();
  auto work = [state, count, &function] {  // a thread that starts late finds no task
    for (int64_t i; (i = state->next.fetch_add(1)) < count;) {
      function(i);
      if (state->done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->all_done.notify_all();
      }
    }
  };
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(decltype(work)(work));
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done.load() == count; });
}

// Padding and strides

// The sizes of an image and of its phases; arrays of two are for height and width.
struct Geometry {
  int64_t channels, height, width, batch;
  int64_t stride[2], before[2];  // padding before the first row and column
  int64_t phases[2];             // number of phases
  int64_t size[2];               // rows and columns of a phase
};

// Copies one channel of x into its phases, with zeros for the padding.
void CopyChannel(const Geometry& g, int64_t channel, const float* x, float* to) {
  const int64_t line = g.size[1] * g.batch;
  const float* image = x + channel * g.height * g.width * g.batch;
  float* out = to + channel * g.phases[0] * g.phases[1] * g.size[0] * line;
  for (int64_t a = 0; a < g.phases[0]; ++a)
    for (int64_t b = 0; b < g.phases[1]; ++b)
      for (int64_t i = 0; i < g.size[0]; ++i, out += line) {
        const int64_t row = i * g.stride[0] + a - g.before[0];
        if (row < 0 || row >= g.height) {
          std::fill_n(out, line, 0.0f);
          continue;
        }
        // Columns j with 0 <= j * stride + b - before < width are in the image.
        const int64_t stride = g.stride[1], shift = g.before[1] - b;
        const int64_t end = g.width + shift;
        const int64_t first = std::min(shift > 0 ? (shift + stride - 1) / stride : 0, g.size[1]);
        const int64_t stop = std::min(end > 0 ? (end - 1) / stride + 1 : 0, g.size[1]);
        const int64_t last = std::max(first, stop);
        std::fill_n(out, first * g.batch, 0.0f);
        std::fill_n(out + last * g.batch, (g.size[1] - last) * g.batch, 0.0f);
        const float* from = image + (row * g.width + first * stride - shift) * g.batch;
        if (stride == 1) {
          std::copy_n(from, (last - first) * g.batch, out + first * g.batch);
          continue;
        }
        for (int64_t j = first; j < last; ++j, from += stride * g.batch)
          std::copy_n(from, g.batch, out + j * g.batch);
      }
}

// Transposition

// Copies positions begin .. begin + lanes - 1 of x (positions, channels) to `to` (channels, lanes).
//
// Where the compiler has shuffles, blocks of 4 x 4 are transposed in registers.
void TransposeTile(const float* x, int64_t channels, int64_t begin, int lanes, float* to) {
  const float* from = x + begin * channels;
  int64_t c = 0;
#if SPARSEJAX_HAS_BUILTIN(__builtin_shufflevector)
  using Four = Floats<4>;
  for (; lanes % 4 == 0 && c + 4 <= channels; c += 4)
    for (int lane = 0; lane < lanes; lane += 4) {
      const auto load_row = [&](int i) {
        return *reinterpret_cast<const Four*>(from + (lane + i) * channels + c);
      };
      const auto store_column = [&](int i, Four column) {
        *reinterpret_cast<Four*>(to + (c + i) * lanes + lane) = column;
      };
      const Four a = __builtin_shufflevector(load_row(0), load_row(1), 0, 4, 1, 5);
      const Four b = __builtin_shufflevector(load_row(2), load_row(3), 0, 4, 1, 5);
      const Four d = __builtin_shufflevector(load_row(0), load_row(1), 2, 6, 3, 7);
      const Four e = __builtin_shufflevector(load_row(2), load_row(3), 2, 6, 3, 7);
      store_column(0, __builtin_shufflevector(a, b, 0, 1, 4, 5));
      store_column(1, __builtin_shufflevector(a, b, 2, 3, 6, 7));
      store_column(2, __builtin_shufflevector(d, e, 0, 1, 4, 5));
      store_column(3, __builtin_shufflevector(d, e, 2, 3, 6, 7));
    }
#endif
  for (; c < channels; ++c)
    for (int lane = 0; lane < lanes; ++lane) to[c * lanes + lane] = from[lane * channels + c];
}

// The product

using F32 = ffi::Buffer<ffi::F32>;
using S32 = ffi::Buffer<ffi::S32>;
using Integers = ffi::Span<const int64_t>;

ffi::Error Sparse(ffi::ThreadPool pool, F32 x, S32 rows, S32 offsets, F32 values, F32 bias,
                  Integers stride, Integers before, Integers phases, Integers size, bool relu,
                  ffi::ResultBuffer<ffi::F32> y, ffi::ResultBuffer<ffi::F32> scratch) {
  const auto in = x.dimensions(), out = y->dimensions();
  const bool is_batch_first = in.size() == 2;
  if ((in.size() != 4 && !is_batch_first) || out.size() != 4 ||
      rows.element_count() != size_t(out[0]) + 1 ||
      bias.element_count() != size_t(out[0]) || stride.size() != 2 || before.size() != 2 ||
      phases.size() != 2 || size.size() != 2)
    return ffi::Error::InvalidArgument("sparsejax: operands of a sparse product do not agree");
  if (y->element_count() == 0) return ffi::Error::Success();

  const float* from = x.typed_data();
  if (scratch->element_count()) {
    const Geometry g{in[0], in[1], in[2], in[3], {stride[0], stride[1]}, {before[0], before[1]},
                     {phases[0], phases[1]}, {size[0], size[1]}};
    float* to = scratch->typed_data();
    const bool is_serial = static_cast<int64_t>(scratch->element_count()) < kMinParallelWork;
    ForEach(pool, g.channels, is_serial, [&](int64_t c) { CopyChannel(g, c, x.typed_data(), to); });
    from = to;
  }

  const int64_t outputs = out[0], batch = out[3], channels = is_batch_first ? in[1] : in[0];
  int64_t lines = out[1], length = out[2] * batch;
  Product p{rows.typed_data(), offsets.typed_data(), values.typed_data(), bias.typed_data(), relu,
            size[1] * batch, length, lines * length};
  if (p.x_row == length) length *= lines, lines = 1;  // contiguous rows are one long row

  // A task is a tile of positions and a block of outputs.
  struct PositionTile {
    TileFunction compute;
    int64_t x, y;   // offsets of its first position
    int positions;  // in one row
    int skipped;    // of these
  };
  std::vector<PositionTile> tiles;
  const std::vector<Segment> segments = Segments(length);
  for (const Segment& segment : segments)
    for (int64_t line = 0; line < lines;) {
      int count = 1;
      while (2 * count <= 4 && 2 * count * segment.vectors <= kTileVectors &&
             line + 2 * count <= lines)
        count *= 2;
      const TileFunction tile = is_batch_first ? TransposedTileOf(segment) : TileOf(segment, count);
      tiles.push_back({tile, line * p.x_row + segment.begin, line * p.y_row + segment.begin,
                        segment.lanes * segment.vectors, segment.skipped});
      line += count;
    }
  const int64_t multiply_adds = static_cast<int64_t>(values.element_count()) * length * lines;
  const bool is_serial = multiply_adds < kMinParallelWork;
  const int64_t tile_count = static_cast<int64_t>(tiles.size());
  // Several tasks for each thread balance the load. A batch-first tile is transposed again for each
  // block of outputs, so there are only as many blocks as give every thread a task.
  const int64_t threads = std::max<int64_t>(pool.num_threads(), 1);
  const int64_t wanted = is_serial ? 1 : (is_batch_first ? 1 : kTasksPerThread) * threads;
  const int64_t blocks = std::clamp<int64_t>((wanted + tile_count - 1) / tile_count, 1, outputs);
  ForEach(pool, tile_count * blocks, is_serial, [&](int64_t task) {
    const PositionTile& tile = tiles[task / blocks];
    const int64_t block = task % blocks;
    const float* tile_from = from + tile.x;
    thread_local std::vector<float> buffer;
    if (is_batch_first) {
      buffer.resize(std::max<size_t>(buffer.size(), channels * tile.positions));
      TransposeTile(from, channels, tile.x, tile.positions, buffer.data());
      tile_from = buffer.data();
    }
    tile.compute(p, outputs * block / blocks, outputs * (block + 1) / blocks, tile_from,
               y->typed_data() + tile.y, tile.skipped);
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(SparsejaxSparse, Sparse,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32>()   // x
                                  .Arg<S32>()   // rows
                                  .Arg<S32>()   // offsets
                                  .Arg<F32>()   // values
                                  .Arg<F32>()   // bias
                                  .Attr<Integers>("stride")
                                  .Attr<Integers>("before")
                                  .Attr<Integers>("phases")
                                  .Attr<Integers>("size")
                                  .Attr<bool>("relu")
                                  .Ret<F32>()   // y
                                  .Ret<F32>());  // scratch: the phases of x, or empty
