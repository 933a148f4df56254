//! The sixteen lanes in registers of x86-64.
//!
//! SAFETY, for every block of this file: the instructions exist where these functions run. The types are private to the kernels,
//! whose bodies are generic and inlined whole into a function compiled for these instructions, which the `kernel!` macro calls only
//! after they were detected. Loads and stores take references to whole arrays and need no alignment.

use std::arch::x86_64::*;

use super::{EXPONENT_BIAS, LANES, Lanes, MANTISSA_BITS, MANTISSA_MASK, ONE_BITS, RECIPROCAL_BITS, ROOT_BITS, Tile};

/// One register of AVX-512.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

/// Two registers of AVX2, with FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

/// Defines methods as one expression over intrinsics. No closures: only what is inlined always ends up in a function that has the
/// instructions.
macro_rules! methods {
    ($($name:ident($self:ident $(, $arg:ident)*) => $body:expr;)*) => {
        $(
            #[inline(always)]
            fn $name($self $(, $arg: Self)*) -> Self {
                // SAFETY: see the top of this file.
                unsafe { $body }
            }
        )*
    };
}

impl Lanes for Avx512 {
    const TILE: Tile = Tile::Wide;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see the top of this file.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        // SAFETY: see the top of this file; 16 values are readable behind the reference.
        Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: see the top of this file; 16 values are writable behind the reference.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    methods! {
        add(self, b) => Self(_mm512_add_ps(self.0, b.0));
        sub(self, b) => Self(_mm512_sub_ps(self.0, b.0));
        mul(self, b) => Self(_mm512_mul_ps(self.0, b.0));
        div(self, b) => Self(_mm512_div_ps(self.0, b.0));
        max(self, b) => Self(_mm512_max_ps(self.0, b.0));
        min(self, b) => Self(_mm512_min_ps(self.0, b.0));
        sqrt(self) => Self(_mm512_sqrt_ps(self.0));
        mul_add(self, b, c) => Self(_mm512_fmadd_ps(self.0, b.0, c.0));
        neg_mul_add(self, b, c) => Self(_mm512_fnmadd_ps(self.0, b.0, c.0));
        exp2_of_shifted(self) => {
            let exponent = _mm512_slli_epi32::<MANTISSA_BITS>(_mm512_castps_si512(self.0));
            Self(_mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(ONE_BITS as i32))))
        };
        near_reciprocal(self) => {
            let all = _mm512_set1_epi32(RECIPROCAL_BITS as i32);
            Self(_mm512_castsi512_ps(_mm512_sub_epi32(all, _mm512_castps_si512(self.0))))
        };
        near_reciprocal_root(self) => {
            let half = _mm512_srli_epi32::<1>(_mm512_castps_si512(self.0));
            Self(_mm512_castsi512_ps(_mm512_sub_epi32(_mm512_set1_epi32(ROOT_BITS as i32), half)))
        };
        where_below(self, bound, yes, no) => {
            Self(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, bound.0), no.0, yes.0))
        };
    }

    #[inline(always)]
    fn any_above(self, bound: Self) -> bool {
        // SAFETY: see the top of this file.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, bound.0) != 0 }
    }

    #[inline(always)]
    fn exponent_and_mantissa(self) -> (Self, Self) {
        // SAFETY: see the top of this file.
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            let exponent = _mm512_sub_epi32(_mm512_srli_epi32::<MANTISSA_BITS>(bits), _mm512_set1_epi32(EXPONENT_BIAS));
            let mantissa = _mm512_and_epi32(bits, _mm512_set1_epi32(MANTISSA_MASK as i32));
            let mantissa = _mm512_or_epi32(mantissa, _mm512_set1_epi32(ONE_BITS as i32));
            (Self(_mm512_cvtepi32_ps(exponent)), Self(_mm512_castsi512_ps(mantissa)))
        }
    }

    #[inline(always)]
    fn gather(from: &[f32], at: &[u32; LANES]) -> Self {
        // SAFETY: see the top of this file; every place is one of `from`.
        unsafe {
            let at = _mm512_loadu_si512(at.as_ptr().cast());
            assert_eq!(beyond(at, from.len()), 0, "a place is not there");
            Self(_mm512_i32gather_ps::<4>(at, from.as_ptr()))
        }
    }

    #[inline(always)]
    fn scatter_add(self, to: &mut [f32], at: &[u32; LANES], n: usize) {
        // SAFETY: see the top of this file; every place is one of `to`.
        unsafe {
            let at = _mm512_loadu_si512(at.as_ptr().cast());
            assert_eq!(beyond(at, to.len()), 0, "a place is not there");
            let sum = _mm512_add_ps(_mm512_i32gather_ps::<4>(at, to.as_ptr()), self.0);
            let first = ((1_u32 << n.min(LANES)) - 1) as __mmask16;
            _mm512_mask_i32scatter_ps::<4>(to.as_mut_ptr(), first, at, sum);
        }
    }

    #[inline(always)]
    fn interleave(self, other: Self) -> (Self, Self) {
        // SAFETY: see the top of this file.
        unsafe {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
            (Self(_mm512_permutex2var_ps(self.0, low, other.0)), Self(_mm512_permutex2var_ps(self.0, high, other.0)))
        }
    }
}

/// Which of these places are not below `n`, or too far for an index with a sign.
///
/// # Safety  the processor has AVX-512
#[inline(always)]
unsafe fn beyond(at: __m512i, n: usize) -> __mmask16 {
    let n = i32::try_from(n).unwrap_or(i32::MAX);
    // SAFETY: the caller's.
    unsafe { _mm512_cmpge_epu32_mask(at, _mm512_set1_epi32(n)) }
}

impl Lanes for Avx2 {
    const TILE: Tile = Tile::Narrow;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see the top of this file.
        let half = unsafe { _mm256_set1_ps(value) };
        Self(half, half)
    }

    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        // SAFETY: see the top of this file; 16 values are readable behind the reference.
        unsafe { Self(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: see the top of this file; 16 values are writable behind the reference.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
        }
    }

    methods! {
        add(self, b) => Self(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1));
        sub(self, b) => Self(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1));
        mul(self, b) => Self(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1));
        div(self, b) => Self(_mm256_div_ps(self.0, b.0), _mm256_div_ps(self.1, b.1));
        max(self, b) => Self(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1));
        min(self, b) => Self(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1));
        sqrt(self) => Self(_mm256_sqrt_ps(self.0), _mm256_sqrt_ps(self.1));
        mul_add(self, b, c) => Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1));
        neg_mul_add(self, b, c) => Self(_mm256_fnmadd_ps(self.0, b.0, c.0), _mm256_fnmadd_ps(self.1, b.1, c.1));
        exp2_of_shifted(self) => {
            let one = _mm256_set1_epi32(ONE_BITS as i32);
            let low = _mm256_slli_epi32::<SHIFT>(_mm256_castps_si256(self.0));
            let high = _mm256_slli_epi32::<SHIFT>(_mm256_castps_si256(self.1));
            Self(
                _mm256_castsi256_ps(_mm256_add_epi32(low, one)),
                _mm256_castsi256_ps(_mm256_add_epi32(high, one)),
            )
        };
        near_reciprocal(self) => {
            let all = _mm256_set1_epi32(RECIPROCAL_BITS as i32);
            Self(
                _mm256_castsi256_ps(_mm256_sub_epi32(all, _mm256_castps_si256(self.0))),
                _mm256_castsi256_ps(_mm256_sub_epi32(all, _mm256_castps_si256(self.1))),
            )
        };
        near_reciprocal_root(self) => {
            let all = _mm256_set1_epi32(ROOT_BITS as i32);
            let low = _mm256_srli_epi32::<1>(_mm256_castps_si256(self.0));
            let high = _mm256_srli_epi32::<1>(_mm256_castps_si256(self.1));
            Self(
                _mm256_castsi256_ps(_mm256_sub_epi32(all, low)),
                _mm256_castsi256_ps(_mm256_sub_epi32(all, high)),
            )
        };
        where_below(self, bound, yes, no) => Self(
            _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, bound.0)),
            _mm256_blendv_ps(no.1, yes.1, _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, bound.1)),
        );
    }

    #[inline(always)]
    fn any_above(self, bound: Self) -> bool {
        // SAFETY: see the top of this file.
        unsafe {
            let low = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, bound.0);
            let high = _mm256_cmp_ps::<_CMP_GT_OQ>(self.1, bound.1);
            _mm256_movemask_ps(_mm256_or_ps(low, high)) != 0
        }
    }

    #[inline(always)]
    fn exponent_and_mantissa(self) -> (Self, Self) {
        // SAFETY: see the top of this file.
        unsafe {
            let bias = _mm256_set1_epi32(EXPONENT_BIAS);
            let (mask, one) = (_mm256_set1_epi32(MANTISSA_MASK as i32), _mm256_set1_epi32(ONE_BITS as i32));
            let (low, high) = (_mm256_castps_si256(self.0), _mm256_castps_si256(self.1));
            let exponent = Self(
                _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32::<SHIFT>(low), bias)),
                _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32::<SHIFT>(high), bias)),
            );
            let mantissa = Self(
                _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(low, mask), one)),
                _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(high, mask), one)),
            );
            (exponent, mantissa)
        }
    }

    #[inline(always)]
    fn interleave(self, other: Self) -> (Self, Self) {
        // SAFETY: see the top of this file.
        unsafe {
            let (low, high) = (_mm256_unpacklo_ps(self.0, other.0), _mm256_unpackhi_ps(self.0, other.0));
            let first = Self(_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high));
            let (low, high) = (_mm256_unpacklo_ps(self.1, other.1), _mm256_unpackhi_ps(self.1, other.1));
            (first, Self(_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)))
        }
    }
}

const SHIFT: i32 = MANTISSA_BITS as i32;
