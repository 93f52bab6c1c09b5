// Sparse weights times dense values, for XLA on CPU.
//
// Values lie feature-major: x is (channels, height, width, batch), y is (outputs, height, width,
// batch), and a dense layer is a convolution over one pixel. Each output has a row of nonzeros, of
// which each is a value and the distance from a position of y to the element of x that it takes:
//
//   y[o, p] = bias[o] + sum_k values[k] * x[offsets[k] + start(p)],  k in rows[o] .. rows[o + 1]
//
// Neighbours along p are neighbours in x as well, for the positions of a row of pixels and for the
// examples of a batch. So one nonzero is broadcast and multiplies a vector, whatever the sparsity
// pattern: no index is gathered. A tile of R rows by V vectors is summed in registers.
//
// Padding and strides are resolved before: the input is copied into `phases`, where the pixels that
// a stride separates lie side by side, with zeros around them (channels, row phases, column phases,
// rows, columns, batch). Without either, x is read where it is.
//
// A matrix product also takes values that lie (batch, channels): each tile turns its positions of
// all channels round, in a buffer that stays in the cache. Offsets are the channels' numbers then.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

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
constexpr int kSums = 8;                // vectors of a tile: half of AVX2's registers
constexpr int64_t kWorthThreads = 1 << 18;  // multiply-adds that repay waking another thread

// A vector that may lie anywhere, of N floats.
template <int N>
struct Vector {
  typedef float type __attribute__((vector_size(N * sizeof(float)), aligned(4), may_alias));
};

template <int N>
using Floats = typename Vector<N>::type;

// One product, of which tiles are computed.
struct Product {
  const int32_t* rows;
  const int32_t* offsets;
  const float* values;
  const float* bias;
  bool relu;
  int64_t x_row;     // from one row of pixels to the next, in x
  int64_t y_row;     // and in y
  int64_t y_output;  // from one output to the next
};

// Computes R rows of V vectors of N floats, for the outputs from first to last.
template <int N, int R, int V, bool kTurned = false>
void Tile(const Product& p, int64_t first, int64_t last, const float* x, float* y) {
  using Lanes = Floats<N>;
  for (int64_t o = first; o < last; ++o) {
    Lanes sums[R][V];
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) sums[r][v] = Lanes{} + p.bias[o];
    for (int32_t k = p.rows[o]; k < p.rows[o + 1]; ++k) {
      const float* from = x + int64_t{p.offsets[k]} * (kTurned ? N * V : 1);
      const float weight = p.values[k];
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v)
          sums[r][v] += weight * *reinterpret_cast<const Lanes*>(from + r * p.x_row + v * N);
    }
    float* to = y + o * p.y_output;
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) {
        Lanes sum = sums[r][v];
        if (p.relu) sum = sum < 0.0f ? Lanes{} : sum;  // NaN stays
        *reinterpret_cast<Lanes*>(to + r * p.y_row + v * N) = sum;
      }
  }
}

// A single position: several sums at once, since each addition would wait for the one before.
void Dot(const Product& p, int64_t first, int64_t last, const float* x, float* y) {
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

using TileFunction = void (*)(const Product&, int64_t, int64_t, const float*, float*);

// A part of every row of pixels that one tile covers.
struct Segment {
  int64_t begin;
  int lanes, vectors;
};

template <int N, int R>
TileFunction TileOf(int vectors) {
  static_assert(kSums == 8);
  if constexpr (R == 1)
    if (vectors == 8) return Tile<N, R, 8>;
  if constexpr (R <= 2)
    if (vectors == 4) return Tile<N, R, 4>;
  return vectors == 2 ? Tile<N, R, 2> : Tile<N, R, 1>;
}

template <int N>
TileFunction TileOf(int rows, int vectors) {
  return rows == 4 ? TileOf<N, 4>(vectors) : rows == 2 ? TileOf<N, 2>(vectors) : TileOf<N, 1>(vectors);
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
TileFunction TurnedTileOf(int vectors) {
  if (vectors == 8) return Tile<N, 1, 8, true>;
  if (vectors == 4) return Tile<N, 1, 4, true>;
  return vectors == 2 ? Tile<N, 1, 2, true> : Tile<N, 1, 1, true>;
}

TileFunction TurnedTileOf(const Segment& segment) {
#if defined(__AVX512F__)
  if (segment.lanes == 16) return TurnedTileOf<16>(segment.vectors);
#endif
#if defined(__AVX__)
  if (segment.lanes == 8) return TurnedTileOf<8>(segment.vectors);
#endif
  return segment.lanes == 4 ? TurnedTileOf<4>(segment.vectors) : TurnedTileOf<1>(segment.vectors);
}

// Cuts a row of n positions: large tiles, then smaller ones, then a vector that overlaps them.
std::vector<Segment> Segments(int64_t n) {
  int lanes = kLanes;
  while (lanes > n) lanes = lanes > 4 ? lanes / 2 : 1;
  std::vector<Segment> found;
  int64_t begin = 0;
  for (int vectors = lanes == 1 ? 1 : kSums; vectors; vectors /= 2)
    for (; n - begin >= vectors * lanes; begin += vectors * lanes)
      found.push_back({begin, lanes, vectors});
  if (begin < n) found.push_back({n - lanes, lanes, 1});
  return found;
}

// Threads

// Calls function(0) .. function(count - 1), on the threads of XLA's pool and on this one.
//
// Every thread takes the next number until none is left. This thread takes part, and waits only for
// numbers that a running thread has taken: it can't wait for a pool that is busy.
template <typename Function>
void ForEach(ffi::ThreadPool& pool, int64_t count, bool alone, const Function& function) {
  const int64_t helpers = alone ? 0 : std::min(pool.num_threads(), count) - 1;
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
  auto work = [state, count, &function] {  // a late helper finds no number, and calls nothing
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

// The two spatial axes of an image, and of its phases.
struct Geometry {
  int64_t channels, height, width, batch;
  int64_t stride[2], before[2];  // zeros before the first row and column
  int64_t phases[2];             // phases in use
  int64_t size[2];               // rows and columns of a phase
};

// Copies one channel of x into its phases, with zeros where x has nothing.
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

// Turning round

// Copies `lanes` positions of every channel, from `begin` on, of x (positions, channels).
void Turn(const float* x, int64_t channels, int64_t begin, int lanes, float* to) {
  const float* from = x + begin * channels;
  int64_t c = 0;
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  using Four = Floats<4>;
  for (; lanes % 4 == 0 && c + 4 <= channels; c += 4)
    for (int lane = 0; lane < lanes; lane += 4) {
      const auto row = [&](int i) {
        return *reinterpret_cast<const Four*>(from + (lane + i) * channels + c);
      };
      const auto put = [&](int i, Four column) {
        *reinterpret_cast<Four*>(to + (c + i) * lanes + lane) = column;
      };
      const Four a = __builtin_shufflevector(row(0), row(1), 0, 4, 1, 5);
      const Four b = __builtin_shufflevector(row(2), row(3), 0, 4, 1, 5);
      const Four d = __builtin_shufflevector(row(0), row(1), 2, 6, 3, 7);
      const Four e = __builtin_shufflevector(row(2), row(3), 2, 6, 3, 7);
      put(0, __builtin_shufflevector(a, b, 0, 1, 4, 5));
      put(1, __builtin_shufflevector(a, b, 2, 3, 6, 7));
      put(2, __builtin_shufflevector(d, e, 0, 1, 4, 5));
      put(3, __builtin_shufflevector(d, e, 2, 3, 6, 7));
    }
#endif
  for (; c < channels; ++c)
    for (int lane = 0; lane < lanes; ++lane) to[c * lanes + lane] = from[lane * channels + c];
}

// The whole product

using F32 = ffi::Buffer<ffi::F32>;
using S32 = ffi::Buffer<ffi::S32>;
using Integers = ffi::Span<const int64_t>;

ffi::Error Sparse(ffi::ThreadPool pool, F32 x, S32 rows, S32 offsets, F32 values, F32 bias,
                  Integers stride, Integers before, Integers phases, Integers size, bool relu,
                                   ffi::ResultBuffer<ffi::F32> y, ffi::ResultBuffer<ffi::F32> copied) {
  const auto in = x.dimensions(), out = y->dimensions();
  const bool turned = in.size() == 2;  // (batch, channels)
  if ((in.size() != 4 && !turned) || out.size() != 4 || rows.element_count() != size_t(out[0]) + 1 ||
      bias.element_count() != size_t(out[0]) || stride.size() != 2 || before.size() != 2 ||
      phases.size() != 2 || size.size() != 2)
    return ffi::Error::InvalidArgument("sparsejax: operands of a sparse product do not agree");
  if (y->element_count() == 0) return ffi::Error::Success();

  const float* from = x.typed_data();
  if (copied->element_count()) {
    const Geometry g{in[0], in[1], in[2], in[3], {stride[0], stride[1]}, {before[0], before[1]},
                     {phases[0], phases[1]}, {size[0], size[1]}};
    float* to = copied->typed_data();
    const bool alone = static_cast<int64_t>(copied->element_count()) < kWorthThreads;
    ForEach(pool, g.channels, alone, [&](int64_t c) { CopyChannel(g, c, x.typed_data(), to); });
    from = to;
  }

  const int64_t outputs = out[0], batch = out[3], channels = turned ? in[1] : in[0];
  int64_t lines = out[1], length = out[2] * batch;
  Product p{rows.typed_data(), offsets.typed_data(), values.typed_data(), bias.typed_data(), relu,
            size[1] * batch, length, lines * length};
  if (p.x_row == length) length *= lines, lines = 1;  // rows without a gap are one long row

  // One task is a tile of the positions and a block of the outputs.
  struct Place {
    TileFunction tile;
    int64_t x, y;
    int lanes;
  };
  std::vector<Place> places;
  const std::vector<Segment> segments = Segments(length);
  for (const Segment& segment : segments)
    for (int64_t line = 0; line < lines;) {
      int count = 1;
      while (2 * count <= 4 && 2 * count * segment.vectors <= kSums && line + 2 * count <= lines)
        count *= 2;
      const TileFunction tile = turned ? TurnedTileOf(segment) : TileOf(segment, count);
      places.push_back({tile, line * p.x_row + segment.begin, line * p.y_row + segment.begin,
                        segment.lanes * segment.vectors});
      line += count;
    }
  const int64_t adds = static_cast<int64_t>(values.element_count()) * length * lines;
  const bool alone = adds < kWorthThreads;
  const int64_t tiles = static_cast<int64_t>(places.size());
  // Blocks of outputs even out the threads; where each turns x round for itself, only if some had none.
  const int64_t wanted = alone ? 1 : (turned ? 1 : 4) * std::max<int64_t>(pool.num_threads(), 1);
  const int64_t blocks = std::clamp<int64_t>((wanted + tiles - 1) / tiles, 1, outputs);
  ForEach(pool, tiles * blocks, alone, [&](int64_t task) {
    const Place& place = places[task / blocks];
    const int64_t block = task % blocks;
    const float* tile_from = from + place.x;
    thread_local std::vector<float> room;
    if (turned) {
      room.resize(std::max<size_t>(room.size(), channels * place.lanes));
      Turn(from, channels, place.x, place.lanes, room.data());
      tile_from = room.data();
    }
    place.tile(p, outputs * block / blocks, outputs * (block + 1) / blocks, tile_from,
               y->typed_data() + place.y);
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
                                  .Ret<F32>()); // x in phases, empty where x is read as it is
