//! Sixteen numbers at a time, with the same result on every processor.

/// Numbers that are computed together.
pub(crate) const LANES: usize = 16;

/// The instructions that kernels are compiled for and this processor has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Level(Set);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Level {
    /// The fastest one.
    pub(crate) fn best() -> Self {
        Self::available()[0]
    }

    /// All that this processor has, the fastest first. Results do not depend on the choice.
    pub(crate) fn available() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if has_avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                levels.push(Self(Set::Avx512));
            }
            if has_avx2 {
                levels.push(Self(Set::Avx2));
            }
        }
        levels.push(Self(Set::Portable));
        levels
    }

    pub(super) fn set(self) -> Set {
        self.0
    }
}

/// Compiles one kernel for every [`Level`] and chooses at run time. The body is generic over `$lanes` and must be inlined whole:
/// what it calls is `#[inline(always)]`.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$lanes:ident>($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name(level: $crate::kernels::lanes::Level, $($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            fn generic<$lanes: $crate::kernels::lanes::Lanes>($($arg: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
            fn avx512($($arg: $type),*) $(-> $ret)? {
                generic::<$crate::kernels::lanes::Avx512>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $ret)? {
                generic::<$crate::kernels::lanes::Avx2>($($arg),*)
            }

            match level.set() {
                // SAFETY: this level is only ever made where the processor was found to have these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::lanes::Set::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::lanes::Set::Avx2 => unsafe { avx2($($arg),*) },
                $crate::kernels::lanes::Set::Portable => generic::<$crate::kernels::lanes::Portable>($($arg),*),
            }
        }
    };
}

pub(crate) use kernel;

/// Sixteen `f32`. All operations are those of IEEE 754, lane by lane, so every implementation gives the same bits.
pub(crate) trait Lanes: Copy {
    /// Rows and vectors of columns that a product keeps in registers.
    const TILE: Tile;

    fn splat(value: f32) -> Self;
    fn load(from: &[f32; LANES]) -> Self;
    fn store(self, to: &mut [f32; LANES]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    /// `self * factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// `self > other ? self : other`: a NaN in `other` stays.
    fn max(self, other: Self) -> Self;
    /// `self < other ? self : other`: a NaN in `other` stays.
    fn min(self, other: Self) -> Self;
    /// `2^n` of `n + `[`SHIFT`], for integers from -126 to 127; 0 for -127.
    fn exp2_of_shifted(self) -> Self;
    /// `1 / self` of a number from 2^-125 to 2^125, to 5.1 %.
    fn near_reciprocal(self) -> Self;
    /// `1 / sqrt(self)` of a normal number above 0, to 3.5 %; finite at 0.
    fn near_reciprocal_root(self) -> Self;
    /// Whether some lane is above the bound; a NaN is not.
    fn any_above(self, bound: Self) -> bool;
    /// Exponent and mantissa (from 1 up to 2) of a normal number above 0.
    fn exponent_and_mantissa(self) -> (Self, Self);
    /// The lanes of both in turn: the first halves, then the second.
    fn interleave(self, other: Self) -> (Self, Self);
    /// `self < bound ? yes : no`; a NaN gives `no`.
    fn where_below(self, bound: Self, yes: Self, no: Self) -> Self;

    /// The numbers at these places.
    ///
    /// # Panics  if one of them is not there
    #[inline(always)]
    fn gather(from: &[f32], at: &[u32; LANES]) -> Self {
        Self::load(&at.map(|at| from[at as usize]))
    }

    /// Adds the first `n` lanes to the numbers at these places, which differ.
    ///
    /// # Panics  if one of them is not there
    #[inline(always)]
    fn scatter_add(self, to: &mut [f32], at: &[u32; LANES], n: usize) {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        for (&at, lane) in at.iter().zip(lanes).take(n) {
            to[at as usize] += lane;
        }
    }

    /// `term - self * factor`, rounded once.
    #[inline(always)]
    fn neg_mul_add(self, factor: Self, term: Self) -> Self {
        Self::splat(0.0).sub(self).mul_add(factor, term)
    }

    /// The lanes' sum, halves first.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        lanes[0]
    }

    /// The largest lane.
    #[inline(always)]
    fn largest(self) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
}

/// The part of a product that is computed in registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tile {
    /// Eight rows of 32 columns: 16 of 32 registers, two products a cycle.
    Wide,
    /// Four rows of 16 columns.
    Narrow,
}

/// An array: for processors without the instructions below, and to compare with.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Portable {
    const TILE: Tile = Tile::Narrow;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        Self(*from)
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], term.0[i])))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn exp2_of_shifted(self) -> Self {
        self.map(|n| f32::from_bits((n.to_bits() << MANTISSA_BITS).wrapping_add(ONE_BITS)))
    }
    #[inline(always)]
    fn near_reciprocal(self) -> Self {
        self.map(|x| f32::from_bits(RECIPROCAL_BITS.wrapping_sub(x.to_bits())))
    }
    #[inline(always)]
    fn near_reciprocal_root(self) -> Self {
        self.map(|x| f32::from_bits(ROOT_BITS.wrapping_sub(x.to_bits() >> 1)))
    }
    #[inline(always)]
    fn any_above(self, bound: Self) -> bool {
        self.0.iter().zip(bound.0).any(|(&x, bound)| x > bound)
    }
    #[inline(always)]
    fn exponent_and_mantissa(self) -> (Self, Self) {
        let exponent = self.map(|x| ((x.to_bits() >> MANTISSA_BITS) as i32 - EXPONENT_BIAS) as f32);
        (exponent, self.map(|x| f32::from_bits(x.to_bits() & MANTISSA_MASK | ONE_BITS)))
    }
    #[inline(always)]
    fn interleave(self, other: Self) -> (Self, Self) {
        let of_half = |start: usize| {
            Self(std::array::from_fn(|i| if i % 2 == 0 { self.0[start + i / 2] } else { other.0[start + i / 2] }))
        };
        (of_half(0), of_half(LANES / 2))
    }
    #[inline(always)]
    fn where_below(self, bound: Self, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] < bound.0[i] { yes.0[i] } else { no.0[i] }))
    }
}

const MANTISSA_BITS: u32 = 23;
const MANTISSA_MASK: u32 = (1 << MANTISSA_BITS) - 1;
const EXPONENT_BIAS: i32 = 127;
const ONE_BITS: u32 = 1.0_f32.to_bits();
/// Bits read as a number are a logarithm, nearly: these less the bits of `x` are those of `1 / x`, as near as one constant can be.
const RECIPROCAL_BITS: u32 = 0x7ef3_1000;
/// The same for half of the bits, and the reciprocal of the root.
const ROOT_BITS: u32 = 0x5f37_4700;

/// Added to a number within ±2^22, it leaves the nearest integer (ties to even) in the lowest bits.
pub(crate) const SHIFT: f32 = 12_582_912.0;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
#[path = "lanes_x86.rs"]
mod x86;
