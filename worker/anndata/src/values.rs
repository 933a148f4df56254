//! A vector of one element type that is known at run time only.

use half::f16;

/// Values of one type, as they stand in the file: a matrix that was read as `int32` is written as `int32`.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are named after their element types")]
pub enum Values {
    Bool(Vec<bool>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    F16(Vec<f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Str(Vec<String>),
}

/// Evaluates one expression for whichever vector is inside, binding it to a name.
macro_rules! each {
    ($values:expr, $v:ident => $body:expr) => {
        match $values {
            $crate::Values::Bool($v) => $body,
            $crate::Values::Str($v) => $body,
            other => $crate::values::each_number!(other, $v => $body, _ => unreachable!("bool and str are matched above")),
        }
    };
}

/// Like `each!`, for numbers; anything else takes the last arm.
macro_rules! each_number {
    ($values:expr, $v:ident => $body:expr, _ => $otherwise:expr) => {
        match $values {
            $crate::Values::I8($v) => $body,
            $crate::Values::I16($v) => $body,
            $crate::Values::I32($v) => $body,
            $crate::Values::I64($v) => $body,
            $crate::Values::U8($v) => $body,
            $crate::Values::U16($v) => $body,
            $crate::Values::U32($v) => $body,
            $crate::Values::U64($v) => $body,
            $crate::Values::F16($v) => $body,
            $crate::Values::F32($v) => $body,
            $crate::Values::F64($v) => $body,
            _ => $otherwise,
        }
    };
}

/// Maps the vector inside to another of the same element type.
macro_rules! rewrap {
    ($values:expr, $v:ident => $body:expr; $($variant:ident)*) => {
        match $values { $($crate::Values::$variant($v) => $crate::Values::$variant($body),)* }
    };
    ($values:expr, $v:ident => $body:expr) => {
        rewrap!($values, $v => $body; Bool I8 I16 I32 I64 U8 U16 U32 U64 F16 F32 F64 Str)
    };
}

pub(crate) use each_number;

/// A number of any element type, converted as `as` converts.
trait Number {
    fn as_f32(&self) -> f32;
    fn as_f64(&self) -> f64;
    fn as_i64(&self) -> i64;
}

macro_rules! number {
    ($($type:ty)*) => {
        $(impl Number for $type {
            fn as_f32(&self) -> f32 {
                *self as f32
            }

            fn as_f64(&self) -> f64 {
                *self as f64
            }

            fn as_i64(&self) -> i64 {
                *self as i64
            }
        })*
    };
}

number!(i8 i16 i32 i64 u8 u16 u32 u64 f32 f64);

impl Number for f16 {
    fn as_f32(&self) -> f32 {
        self.to_f32()
    }

    fn as_f64(&self) -> f64 {
        self.to_f64()
    }

    fn as_i64(&self) -> i64 {
        self.to_f64() as i64
    }
}

impl Values {
    /// Number of values.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the element type as numpy writes it: `float32`, `int64`, `bool`, `str`…
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "int8",
            Self::I16(_) => "int16",
            Self::I32(_) => "int32",
            Self::I64(_) => "int64",
            Self::U8(_) => "uint8",
            Self::U16(_) => "uint16",
            Self::U32(_) => "uint32",
            Self::U64(_) => "uint64",
            Self::F16(_) => "float16",
            Self::F32(_) => "float32",
            Self::F64(_) => "float64",
            Self::Str(_) => "str",
        }
    }

    /// Numbers and booleans as `f32` (integers beyond 2²⁴ round); `None` for text.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        match self {
            Self::F32(v) => Some(v.clone()),
            Self::Bool(v) => Some(v.iter().map(|&b| f32::from(u8::from(b))).collect()),
            other => each_number!(other, v => Some(v.iter().map(|x| x.as_f32()).collect()), _ => None),
        }
    }

    /// Numbers and booleans as `f64` (integers beyond 2⁵³ round); `None` for text.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        match self {
            Self::Bool(v) => Some(v.iter().map(|&b| f64::from(u8::from(b))).collect()),
            other => each_number!(other, v => Some(v.iter().map(|x| x.as_f64()).collect()), _ => None),
        }
    }

    /// Integers and booleans as `i64`; `None` for floats, text and integers that do not fit.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        match self {
            Self::Bool(v) => Some(v.iter().map(|&b| i64::from(b)).collect()),
            Self::F16(_) | Self::F32(_) | Self::F64(_) => None,
            Self::U64(v) => v.iter().map(|&x| i64::try_from(x).ok()).collect(),
            other => each_number!(other, v => Some(v.iter().map(|x| x.as_i64()).collect()), _ => None),
        }
    }

    /// Every value as text, numbers as Rust prints them, booleans as `True` and `False`.
    pub fn to_strings(&self) -> Vec<String> {
        match self {
            Self::Str(v) => v.clone(),
            Self::Bool(v) => v.iter().map(|&b| if b { "True" } else { "False" }.to_owned()).collect(),
            other => each_number!(other, v => v.iter().map(ToString::to_string).collect(), _ => Vec::new()),
        }
    }

    /// The text values, if this is text.
    pub fn as_str(&self) -> Option<&[String]> {
        match self {
            Self::Str(v) => Some(v),
            _ => None,
        }
    }

    /// The values of all parts one after another, where all are of one element type.
    pub fn concatenated(parts: &[&Self]) -> Option<Self> {
        let mut parts = parts.iter().copied();
        let mut all = parts.next()?.clone();
        for part in parts {
            match (&mut all, part) {
                (Self::Bool(all), Self::Bool(part)) => all.extend_from_slice(part),
                (Self::I8(all), Self::I8(part)) => all.extend_from_slice(part),
                (Self::I16(all), Self::I16(part)) => all.extend_from_slice(part),
                (Self::I32(all), Self::I32(part)) => all.extend_from_slice(part),
                (Self::I64(all), Self::I64(part)) => all.extend_from_slice(part),
                (Self::U8(all), Self::U8(part)) => all.extend_from_slice(part),
                (Self::U16(all), Self::U16(part)) => all.extend_from_slice(part),
                (Self::U32(all), Self::U32(part)) => all.extend_from_slice(part),
                (Self::U64(all), Self::U64(part)) => all.extend_from_slice(part),
                (Self::F16(all), Self::F16(part)) => all.extend_from_slice(part),
                (Self::F32(all), Self::F32(part)) => all.extend_from_slice(part),
                (Self::F64(all), Self::F64(part)) => all.extend_from_slice(part),
                (Self::Str(all), Self::Str(part)) => all.extend_from_slice(part),
                _ => return None,
            }
        }
        Some(all)
    }

    /// The values at `positions`, in that order.
    ///
    /// # Panics
    /// If a position is not below `len()`.
    #[must_use]
    pub fn gather(&self, positions: &[usize]) -> Self {
        fn pick<T: Clone>(v: &[T], positions: &[usize]) -> Vec<T> {
            positions.iter().map(|&at| v[at].clone()).collect()
        }
        rewrap!(self, v => pick(v, positions))
    }

    /// The values at some positions, and zero (false, no text) where there is none.
    pub(crate) fn gather_or_zero(&self, positions: impl Iterator<Item = Option<usize>>) -> Self {
        fn pick<T: Clone + Default>(v: &[T], positions: impl Iterator<Item = Option<usize>>) -> Vec<T> {
            positions.map(|at| at.map_or_else(T::default, |at| v[at].clone())).collect()
        }
        rewrap!(self, v => pick(v, positions))
    }

    /// So many zeros of the same type.
    pub(crate) fn zeros(&self, n: usize) -> Self {
        self.gather_or_zero(std::iter::repeat_n(None, n))
    }
}

macro_rules! from_vec {
    ($($variant:ident $type:ty),*) => {
        $(impl From<Vec<$type>> for Values {
            fn from(v: Vec<$type>) -> Self {
                Self::$variant(v)
            }
        })*
    };
}

from_vec!(Bool bool, I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64, F16 f16, F32 f32, F64 f64, Str String);

impl From<Vec<&str>> for Values {
    fn from(v: Vec<&str>) -> Self {
        Self::Str(v.into_iter().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_convert_and_text_does_not() {
        assert_eq!(Values::from(vec![1_i16, -2]).to_f32(), Some(vec![1.0, -2.0]));
        assert_eq!(Values::from(vec![true, false]).to_i64(), Some(vec![1, 0]));
        assert_eq!(Values::from(vec![1.5_f64]).to_i64(), None);
        assert_eq!(Values::from(vec![u64::MAX]).to_i64(), None);
        assert_eq!(Values::from(vec!["a"]).to_f64(), None);
    }

    #[test]
    fn halves_are_numbers_of_their_own_type() {
        let halves = Values::from(vec![f16::from_f32(0.5), f16::from_f32(-2.0)]);
        assert_eq!((halves.dtype(), halves.to_f32(), halves.to_i64()), ("float16", Some(vec![0.5, -2.0]), None));
        assert_eq!(Values::concatenated(&[&halves, &halves.gather(&[1])]).unwrap().len(), 3);
    }

    #[test]
    fn gather_keeps_type_and_order() {
        let values = Values::from(vec![10_u8, 20, 30]);
        assert_eq!(values.gather(&[2, 0, 2]), Values::U8(vec![30, 10, 30]));
        assert_eq!(Values::from(vec!["a", "b"]).gather(&[1]), Values::from(vec!["b"]));
    }
}
