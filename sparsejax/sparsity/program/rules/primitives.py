"""The primitives that make no multiply-accumulates with weights.

A primitive that is neither here nor in the tables of rules may multiply by weights unseen, so a
program with one is refused.
"""

ELEMENTWISE = """
abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e
bitcast_convert_type cbrt ceil clamp clz complex conj convert_element_type copy copy_p cos cosh
device_put digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a
igammac imag integer_pow is_finite layout_constraint le le_to lgamma log log1p logistic lt lt_to max
mesh_cast min mul mulhi name ne neg nextafter not optimization_barrier or pbroadcast polygamma
population_count pow pvary random_gamma real reduce_precision regularized_incomplete_beta rem
reshard round rsqrt select_n sharding_constraint shift_left shift_right_arithmetic
shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta
"""

# They move, sort, sum, draw or send numbers, but multiply none by a weight.
WITHOUT_PRODUCTS = """
after_all all_gather all_to_all approx_top_k axis_index create_token cumlogsumexp cummax cummin
cumprod cumsum dce_sink debug_callback debug_print dynamic_update_slice empty empty2 fft iota
iota_2x32_shape pad philox2x32 philox4x32 pmax pmin ppermute psum psum_invariant random_bits
random_clone random_fold_in random_seed random_split random_unwrap random_wrap reduce reduce_and
reduce_max reduce_min reduce_or reduce_prod reduce_scatter reduce_sum reduce_window
reduce_window_max reduce_window_min reduce_window_sum reduce_xor rev rng_bit_generator rng_uniform
scatter scatter-add scatter-max scatter-min scatter-mul scatter-sub scatter_add scatter_max
scatter_min scatter_mul scatter_sub select_and_gather_add select_and_scatter
select_and_scatter_add sort stack threefry2x32 threefry4x32 tie tile top_k
"""

HARMLESS = frozenset((ELEMENTWISE + WITHOUT_PRODUCTS).split())
# Elementwise primitives whose result is still a kernel where an operand is: masked, normalised...
KEEPS_A_KERNEL = frozenset(['mul', 'div', 'select_n', 'and', 'convert_element_type', 'copy'])
