// A call of a C++ kernel with its gradient: `vision::fused_norm`, an autograd function in C++. One in
// Python would take longer than a small norm. It serves every norm, by the addresses of its functions
// (norm.h); ops.py has the same in operators that torch.compile and torch.export can see, and both
// give the same bits.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randint.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <array>
#include <limits>
#include <string>

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int kParameters = 4;
using Parameters = std::array<Tensor, kParameters>;  // undefined ones at the end

// A row pointer, the step between rows, and what keeps the memory.
struct Matrix {
  Tensor tensor;
  int64_t stride;
  explicit Matrix(const Tensor& x) : tensor(x), stride(x.size(-1)) {
    if (x.is_contiguous()) return;
    const int64_t dim = stride;
    tensor = x.reshape({x.numel() / dim, dim});
    if (tensor.stride(1) != 1 && dim != 1) tensor = tensor.contiguous();
    stride = tensor.stride(0);
  }
  void* data() const { return tensor.data_ptr(); }
};

// A norm's functions for one dtype of x (norm.h). Each is made once and never deleted.
struct Kernel {
  std::string title;
  int64_t forward, backward;  // addresses
  int64_t kept;               // arrays kept per row
};

at::ScalarType wide(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// x as the kernels read it. Even a conversion that has nothing to do goes through torch's dispatcher.
Tensor ready(const Tensor& given, at::ScalarType dtype) {
  return given.scalar_type() == dtype ? given.contiguous() : given.to(dtype).contiguous();
}

void* address(const Tensor& x) { return x.defined() ? x.data_ptr() : nullptr; }

struct Settings {
  int64_t heads;
  double keep, eps;
};

// Scale and shift of the norm's y, [samples, 1, dim], and in a backward their gradients.
struct Modulation {
  Tensor scale, shift, dscale, dshift;
};

// The arguments that forward and backward share, in the order of norm.h.
template <typename... First>
void call(int64_t function, const Tensor& x, const Parameters& given, const Tensor& rstd,
          const Tensor& heads, const Tensor& mask, const Settings& settings,
          const Modulation& modulation, First... first) {
  Parameters parameters;
  for (int k = 0; k < kParameters; ++k)
    if (given[k].defined()) parameters[k] = ready(given[k], wide(x));
  using Function = void(First..., const void*, const void*, const void*, const void*, void*, void*,
                        const void*, double, double, int64_t, int64_t, int64_t, const void*,
                        const void*, void*, void*, int64_t, int);
  const int64_t dim = x.size(-1), rows = x.numel() / dim;
  Tensor scale, shift;
  if (modulation.scale.defined()) {
    scale = ready(modulation.scale, wide(x));
    shift = ready(modulation.shift, wide(x));
  }
  const int64_t tokens = scale.defined() && rows > 0 ? rows / (scale.numel() / dim) : 1;
  reinterpret_cast<Function*>(function)(
      first..., address(parameters[0]), address(parameters[1]), address(parameters[2]),
      address(parameters[3]), address(rstd), address(heads), address(mask), settings.keep,
      settings.eps, rows, dim, settings.heads, address(scale), address(shift),
      address(modulation.dscale), address(modulation.dshift), tokens, at::get_num_threads());
}

// Which coefficients dropout keeps, bool [..., heads]: those that ops.py draws for the same generator.
Tensor draw_mask(int64_t function, const Tensor& x, int64_t heads, double keep) {
  auto shape = x.sizes().vec();
  shape.back() = heads;
  const Tensor mask = at::empty(shape, x.options().dtype(at::kBool));
  const int64_t key =
      at::randint(std::numeric_limits<int64_t>::max(), {}, at::kLong).item<int64_t>();
  reinterpret_cast<void (*)(void*, int64_t, uint64_t, double, int)>(function)(
      mask.data_ptr(), mask.numel(), static_cast<uint64_t>(key), keep, at::get_num_threads());
  return mask;
}

// What a backward gives can be used, but has no gradient itself.
struct LastDerivative : torch::autograd::Function<LastDerivative> {
  static variable_list forward(AutogradContext* ctx, const Tensor& dy, const Tensor& x,
                               const std::string& title, at::TensorList results) {
    ctx->saved_data["title"] = title;
    variable_list same;
    for (const Tensor& result : results) same.push_back(result.alias());
    return same;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list&) {
    TORCH_CHECK(false, "the fused ", ctx->saved_data["title"].toStringRef(),
                " has no second derivative; for one set backend: eager in the norm's options, or "
                "VISION_NORM_BACKEND=eager");
  }
};

struct FusedNorm : torch::autograd::Function<FusedNorm> {
  using Maybe = std::optional<Tensor>;

  static Tensor forward(AutogradContext* ctx, const Kernel* kernel, const Tensor& x,
                        const Maybe& p0, const Maybe& p1, const Maybe& p2, const Maybe& p3,
                        const Maybe& given, int64_t num_heads, double eps, double keep,
                        int64_t draw, const Maybe& scale, const Maybe& shift) {
    at::AutoDispatchBelowADInplaceOrView plain;
    const Parameters parameters{p0.value_or(Tensor()), p1.value_or(Tensor()),
                                p2.value_or(Tensor()), p3.value_or(Tensor())};
    const Tensor mask = draw != 0 ? draw_mask(draw, x, num_heads, keep) : given.value_or(Tensor());
    const Settings settings{num_heads, keep, eps};
    const auto options = x.options().dtype(wide(x));
    auto shape = x.sizes().vec();
    shape.pop_back();
    Tensor rstd, heads;
    if (kernel->kept > 0) rstd = at::empty(shape, options);
    shape.push_back(num_heads);
    if (kernel->kept > 1) heads = at::empty(shape, options);
    const Tensor y = at::empty_like(x, at::MemoryFormat::Contiguous);
    const Matrix rows(x);
    const Modulation modulation{scale.value_or(Tensor()), shift.value_or(Tensor()), {}, {}};
    call(kernel->forward, x, parameters, rstd, heads, mask, settings, modulation, rows.data(),
         rows.stride, y.data_ptr());
    ctx->save_for_backward({x, parameters[0], parameters[1], parameters[2], parameters[3], mask, rstd,
                            heads, modulation.scale, modulation.shift});
    ctx->saved_data["kernel"] = reinterpret_cast<int64_t>(kernel);
    ctx->saved_data["heads"] = num_heads;
    ctx->saved_data["keep"] = keep;
    ctx->saved_data["eps"] = eps;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    constexpr int before = 2, after = 7;  // arguments of forward beside the parameters
    variable_list result(before + kParameters + after);
    const Tensor& dy = gradients[0];
    if (!dy.defined()) return result;
    const auto saved = ctx->get_saved_variables();
    const Tensor& x = saved[0];
    const Parameters parameters{saved[1], saved[2], saved[3], saved[4]};
    const auto* kernel = reinterpret_cast<const Kernel*>(ctx->saved_data["kernel"].toInt());
    const bool again = at::GradMode::is_enabled();
    Tensor dx, sums;
    Modulation modulation{saved[8], saved[9], {}, {}};
    {
      at::AutoDispatchBelowADInplaceOrView plain;
      dx = at::empty_like(x, at::MemoryFormat::Contiguous);
      int64_t count = 0;
      for (const Tensor& p : parameters) count += p.defined() ? p.numel() : 0;
      sums = at::empty({count}, x.options().dtype(wide(x)));
      const Settings settings{ctx->saved_data["heads"].toInt(),
                              ctx->saved_data["keep"].toDouble(),
                              ctx->saved_data["eps"].toDouble()};
      if (modulation.scale.defined()) {
        // zeros: of samples without rows no sum is written
        modulation.dscale = at::zeros(modulation.scale.sizes(), sums.options());
        modulation.dshift = at::zeros(modulation.scale.sizes(), sums.options());
      }
      const Matrix rows(x), grad(dy);
      call(kernel->backward, x, parameters, saved[6], saved[7], saved[5],
           settings, modulation, rows.data(), rows.stride, grad.data(), grad.stride,
           dx.data_ptr(), sums.data_ptr());
    }
    if (again) {
      variable_list found{dx, sums};
      if (modulation.scale.defined()) found.insert(found.end(), {modulation.dscale, modulation.dshift});
      found = LastDerivative::apply(dy, x, kernel->title, at::TensorList(found));
      dx = found[0], sums = found[1];
      if (modulation.scale.defined()) modulation.dscale = found[2], modulation.dshift = found[3];
    }
    result[before - 1] = dx;
    std::optional<at::AutoDispatchBelowADInplaceOrView> plain;
    if (!again) plain.emplace();
    int64_t first = 0;
    for (int k = 0; k < kParameters && parameters[k].defined(); ++k) {
      const int64_t size = parameters[k].numel();
      result[before + k] = ready(sums.as_strided({size}, {1}, first), parameters[k].scalar_type());
      first += size;
    }
    if (modulation.scale.defined()) {
      result[before + kParameters + 5] = ready(modulation.dscale, modulation.scale.scalar_type());
      result[before + kParameters + 6] = ready(modulation.dshift, modulation.shift.scalar_type());
    }
    return result;
  }
};

int64_t fused_kernel(c10::string_view title, int64_t forward, int64_t backward, int64_t kept) {
  return reinterpret_cast<int64_t>(new Kernel{std::string(title), forward, backward, kept});
}

Tensor fused_norm(int64_t kernel, const Tensor& x, const std::vector<Tensor>& parameters,
                  int64_t num_heads, double eps, double keep, const std::optional<Tensor>& mask,
                  int64_t draw, const std::optional<Tensor>& scale,
                  const std::optional<Tensor>& shift) {
  const auto maybe = [&](size_t k) {
    return k < parameters.size() ? std::optional<Tensor>(parameters[k]) : std::nullopt;
  };
  return FusedNorm::apply(reinterpret_cast<const Kernel*>(kernel), x, maybe(0), maybe(1), maybe(2),
                          maybe(3), mask, num_heads, eps, keep, draw, scale, shift);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(vision, library) {
  library.def("fused_kernel(str title, int forward, int backward, int kept) -> int", &fused_kernel);
  library.def(
      "fused_norm(int kernel, Tensor x, Tensor[] parameters, int num_heads, float eps, float keep, "
      "Tensor? mask=None, int draw=0, Tensor? scale=None, Tensor? shift=None) -> Tensor",
      &fused_norm);
}
