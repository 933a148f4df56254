//! numpy arrays and scalars in a pickle: the two calls that numpy writes, under its old and its new module names.

use super::{Call, Scalar, Value};

/// A numpy array, its elements in row-major order.
#[derive(Clone, Debug)]
pub struct NdArray<'a> {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The elements.
    pub elements: Elements<'a>,
}

/// Elements of an array.
#[derive(Clone, Debug)]
pub enum Elements<'a> {
    /// Truth values.
    Bool(Vec<bool>),
    /// Integers of any width.
    Int(Vec<i64>),
    /// Floats of any width.
    Float(Vec<f64>),
    /// Fixed-width text.
    Text(Vec<String>),
    /// Python objects.
    Object(Vec<Value<'a>>),
}

impl<'a> NdArray<'a> {
    /// The array that an object is, if it is one of a known element type and its parts fit.
    pub fn of(value: Value<'a>) -> Option<Self> {
        let call = value.call()?;
        if !RECONSTRUCT.contains(&call.class) {
            return None;
        }
        // (version, shape, dtype, is_fortran, data)
        let [_, shape, dtype, is_fortran, data] = call.state?.items()?[..] else { return None };
        let shape: Vec<usize> =
            shape.items()?.into_iter().map(|n| usize::try_from(n.as_int()?).ok()).collect::<Option<_>>()?;
        let n_elements = shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size))?;
        let elements = Dtype::of(dtype)?.elements(data, n_elements)?;
        let elements = if is_fortran.as_bool()? { elements.into_row_major(&shape) } else { elements };
        Some(Self { shape, elements })
    }

    /// The elements as plain values; nothing if an object is not one.
    pub fn scalars(&self) -> Option<Vec<Scalar>> {
        Some(match &self.elements {
            Elements::Bool(values) => values.iter().copied().map(Scalar::Bool).collect(),
            Elements::Int(values) => values.iter().copied().map(Scalar::Int).collect(),
            Elements::Float(values) => values.iter().copied().map(Scalar::Float).collect(),
            Elements::Text(values) => values.iter().cloned().map(Scalar::Text).collect(),
            Elements::Object(values) => return values.iter().map(|value| value.scalar()).collect(),
        })
    }
}

/// The plain value that a numpy scalar is.
pub(super) fn scalar(value: Value<'_>) -> Option<Scalar> {
    let call = value.call()?;
    let [dtype, data] = call.arguments[..] else { return None };
    if !SCALAR.contains(&call.class) {
        return None;
    }
    // The data are bytes, so an object scalar, which could nest without end, is none of ours.
    let elements = Dtype::of(dtype)?.decode(&data.bytes()?, 1)?;
    NdArray { shape: vec![], elements }.scalars()?.pop()
}

impl Elements<'_> {
    /// Reorders from column-major.
    fn into_row_major(self, shape: &[usize]) -> Self {
        match self {
            Self::Bool(values) => Self::Bool(row_major(&values, shape)),
            Self::Int(values) => Self::Int(row_major(&values, shape)),
            Self::Float(values) => Self::Float(row_major(&values, shape)),
            Self::Text(values) => Self::Text(row_major(&values, shape)),
            Self::Object(values) => Self::Object(row_major(&values, shape)),
        }
    }
}

fn row_major<T: Clone>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    let mut index = vec![0; shape.len()];
    for _ in 0..values.len() {
        let at = index.iter().zip(shape).rev().fold(0, |at, (i, n)| at * n + i);
        out.push(values[at].clone());
        for (i, &n) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < n {
                break;
            }
            *i = 0;
        }
    }
    out
}

/// Element type: numpy's letter, bytes per element, byte order.
#[derive(Clone, Copy)]
struct Dtype {
    letter: char,
    width: usize,
    is_big_endian: bool,
}

impl Dtype {
    /// `numpy.dtype("U10", False, True)` with the state `(3, "<", …, width, …)`.
    fn of(value: Value<'_>) -> Option<Self> {
        let Call { class: "numpy.dtype", arguments, state } = value.call()? else { return None };
        let code = arguments.first()?.as_str()?;
        let letter = code.chars().next()?;
        let count: usize = match &code[letter.len_utf8()..] {
            "" if letter == 'O' => 8,
            digits => digits.parse().ok()?,
        };
        let order = state.and_then(|state| state.items()?.get(1)?.as_str());
        let width = if letter == 'U' { count.checked_mul(4)? } else { count };
        Some(Self { letter, width, is_big_endian: order == Some(">") })
    }

    fn elements<'a>(self, data: Value<'a>, n_elements: usize) -> Option<Elements<'a>> {
        if self.letter == 'O' {
            return data.items().filter(|items| items.len() == n_elements).map(Elements::Object);
        }
        self.decode(&data.bytes()?, n_elements)
    }

    fn decode<'a>(self, bytes: &[u8], n_elements: usize) -> Option<Elements<'a>> {
        if bytes.len() != n_elements.checked_mul(self.width)? || (self.width == 0 && n_elements > 0) {
            return None;
        }
        let elements = bytes.chunks_exact(self.width.max(1));
        Some(match (self.letter, self.width) {
            ('b', 1) => Elements::Bool(elements.map(|b| b[0] != 0).collect()),
            ('i', 1 | 2 | 4 | 8) => Elements::Int(elements.map(|b| self.integer(b, true)).collect()),
            ('u', 1 | 2 | 4) => Elements::Int(elements.map(|b| self.integer(b, false)).collect()),
            ('f', 4) => {
                Elements::Float(elements.map(|b| f64::from(f32::from_bits(self.integer(b, false) as u32))).collect())
            }
            ('f', 8) => Elements::Float(elements.map(|b| f64::from_bits(self.integer(b, false) as u64)).collect()),
            ('U', _) => Elements::Text(elements.map(|b| self.text(b)).collect::<Option<_>>()?),
            _ => return None,
        })
    }

    fn integer(self, bytes: &[u8], signed: bool) -> i64 {
        let mut bytes = bytes.to_vec();
        if self.is_big_endian {
            bytes.reverse();
        }
        super::machine::little_endian(&bytes, signed)
    }

    /// UCS-4, padded with zeros.
    fn text(self, bytes: &[u8]) -> Option<String> {
        let points: Vec<u32> = bytes.chunks_exact(4).map(|b| self.integer(b, false) as u32).collect();
        let length = points.iter().rposition(|&point| point != 0).map_or(0, |last| last + 1);
        points[..length].iter().map(|&point| char::from_u32(point)).collect()
    }
}

/// How numpy names an array to be filled.
const RECONSTRUCT: [&str; 2] = ["numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"];
/// How numpy names a scalar.
const SCALAR: [&str; 2] = ["numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"];
