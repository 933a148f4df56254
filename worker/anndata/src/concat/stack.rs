//! Matrices and elements of several data sets as one, of their own layout and type where all share one.

use super::columns;
use crate::{Array, Column, Csr, DataFrame, Element, Layout, Matrix, Result, Sparse, Values};

/// Matrices below each other, their columns brought to where `targets` says; what a part lacks is zero.
///
/// All dense: dense. All of one element type: of that, else floats. By rows where any is sparse.
pub(crate) fn matrices(matrices: &[&Matrix], targets: &[Vec<Option<u32>>], n_cols: usize) -> Result<Matrix> {
    let is_one_type = matrices.iter().all(|matrix| matrix.dtype() == matrices[0].dtype());
    if !is_one_type {
        return of_floats(matrices, targets, n_cols);
    }
    let dense: Option<Vec<&Array>> = matrices.iter().map(|matrix| matrix.as_dense()).collect();
    if let Some(arrays) = dense {
        let stacked: Vec<Values> = arrays.iter().zip(targets).map(|(array, to)| spread(array, to, n_cols)).collect();
        let n_rows = arrays.iter().map(|array| array.shape()[0]).sum();
        let values = Values::concatenated(&stacked.iter().collect::<Vec<_>>()).expect("all are of one type");
        return Matrix::dense(Array::matrix(n_rows, n_cols, values)?);
    }
    let sparse: Option<Vec<&Sparse>> = matrices.iter().map(|matrix| matrix.as_sparse()).collect();
    match sparse {
        Some(parts) => by_rows(&parts, targets, n_cols).map(Matrix::Sparse),
        None => of_floats(matrices, targets, n_cols),
    }
}

fn of_floats(matrices: &[&Matrix], targets: &[Vec<Option<u32>>], n_cols: usize) -> Result<Matrix> {
    let aligned = matrices.iter().zip(targets).map(|(matrix, to)| matrix.to_csr()?.map_cols(to, n_cols));
    Ok(Csr::vstack(n_cols, aligned.collect::<Result<Vec<_>>>()?)?.into())
}

/// A dense matrix with its columns where they belong.
fn spread(array: &Array, to: &[Option<u32>], n_cols: usize) -> Values {
    let (n_rows, width) = (array.shape()[0], array.shape()[1]);
    let mut from: Vec<Option<usize>> = vec![None; n_cols];
    for (column, target) in to.iter().enumerate() {
        if let Some(target) = target {
            from[*target as usize] = Some(column);
        }
    }
    let positions =
        (0..n_rows).flat_map(|row| from.iter().map(move |column| column.map(|column| row * width + column)));
    array.values().gather_or_zero(positions)
}

/// Sparse matrices of one element type, by rows.
fn by_rows(parts: &[&Sparse], targets: &[Vec<Option<u32>>], n_cols: usize) -> Result<Sparse> {
    let (mut indptr, mut indices, mut values, mut n_rows) = (vec![0], Vec::new(), Vec::new(), 0);
    for (part, to) in parts.iter().zip(targets) {
        let part = part.by_rows();
        let mut taken = Vec::with_capacity(part.indices().len());
        for row in part.indptr().windows(2) {
            let mut of_row: Vec<(u32, usize)> =
                (row[0]..row[1]).filter_map(|at| Some((to[part.indices()[at] as usize]?, at))).collect();
            of_row.sort_unstable();
            indices.extend(of_row.iter().map(|(column, _)| *column));
            taken.extend(of_row.iter().map(|(_, at)| *at));
            indptr.push(indices.len());
        }
        values.push(part.values().gather(&taken));
        n_rows += part.shape().0;
    }
    let values = Values::concatenated(&values.iter().collect::<Vec<_>>()).expect("all are of one type");
    Sparse::new(Layout::Csr, (n_rows, n_cols), indptr, indices, values)
}

/// Elements of `obsm` below each other; `None` where they differ in kind, width or the names of their columns.
pub(super) fn elements(elements: &[&Element]) -> Result<Option<Element>> {
    if let Some(arrays) = all(elements, |element| if let Element::Array(array) = element { Some(array) } else { None })
    {
        return of_arrays(&arrays);
    }
    if let Some(frames) = all(elements, |element| if let Element::Frame(frame) = element { Some(frame) } else { None })
    {
        return of_frames(&frames);
    }
    if let Some(parts) = all(elements, |element| if let Element::Sparse(part) = element { Some(part) } else { None }) {
        let n_cols = parts[0].shape().1;
        let is_one =
            parts.iter().all(|part| part.shape().1 == n_cols && part.values().dtype() == parts[0].values().dtype());
        let targets = vec![(0..n_cols as u32).map(Some).collect(); parts.len()];
        return if is_one { by_rows(&parts, &targets, n_cols).map(|all| Some(Element::Sparse(all))) } else { Ok(None) };
    }
    Ok(None)
}

fn all<'a, T>(elements: &[&'a Element], of: impl Fn(&'a Element) -> Option<&'a T>) -> Option<Vec<&'a T>> {
    elements.iter().map(|element| of(element)).collect()
}

fn of_arrays(arrays: &[&Array]) -> Result<Option<Element>> {
    let inner = arrays[0].shape().get(1..).unwrap_or_default();
    let fit = arrays.iter().all(|array| !array.shape().is_empty() && &array.shape()[1..] == inner);
    if !fit {
        return Ok(None);
    }
    let values: Vec<&Values> = arrays.iter().map(|array| array.values()).collect();
    let as_floats = || values.iter().map(|values| values.to_f64()).collect::<Option<Vec<_>>>();
    let Some(values) = Values::concatenated(&values).or_else(|| Some(Values::F64(as_floats()?.concat()))) else {
        return Ok(None);
    };
    let n_rows = arrays.iter().map(|array| array.shape()[0]).sum();
    let shape = std::iter::once(n_rows).chain(inner.iter().copied()).collect();
    Ok(Some(Element::Array(Array::new(shape, values)?)))
}

fn of_frames(frames: &[&DataFrame]) -> Result<Option<Element>> {
    if frames.iter().any(|frame| frame.column_names() != frames[0].column_names()) {
        return Ok(None);
    }
    let mut all = DataFrame::new(frames.iter().flat_map(|frame| frame.index().iter().cloned()));
    let lengths: Vec<usize> = frames.iter().map(|frame| frame.n_rows()).collect();
    for (at, (name, _)) in frames[0].columns().iter().enumerate() {
        let of_frames: Vec<Option<&Column>> = frames.iter().map(|frame| Some(&frame.columns()[at].1)).collect();
        let Some(column) = columns::concatenated(&of_frames, &lengths) else { return Ok(None) };
        all.insert(name.as_str(), column)?;
    }
    Ok(Some(Element::Frame(all)))
}

impl Matrix {
    fn as_dense(&self) -> Option<&Array> {
        match self {
            Self::Dense(array) => Some(array),
            Self::Sparse(_) => None,
        }
    }

    fn as_sparse(&self) -> Option<&Sparse> {
        match self {
            Self::Dense(_) => None,
            Self::Sparse(sparse) => Some(sparse),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Vec<Vec<Option<u32>>> {
        vec![vec![Some(0), Some(1)], vec![Some(2), Some(0)]]
    }

    fn dense(n_rows: usize, values: impl Into<Values>) -> Matrix {
        Matrix::dense(Array::matrix(n_rows, 2, values).unwrap()).unwrap()
    }

    #[test]
    fn matrices_of_one_kind_keep_layout_and_type() {
        let (a, b) = (dense(1, vec![1_i64, 2]), dense(2, vec![3_i64, 4, 5, 6]));
        let joined = matrices(&[&a, &b], &targets(), 3).unwrap();
        let expected = Array::matrix(3, 3, vec![1_i64, 2, 0, 4, 0, 3, 6, 0, 5]).unwrap();
        assert_eq!(joined, Matrix::dense(expected).unwrap());

        let by_columns = Sparse::new(Layout::Csc, (2, 2), vec![0, 1, 2], vec![1, 0], vec![7_u16, 8]).unwrap();
        let parts: [Matrix; 2] = [by_columns.clone().into(), by_columns.into()];
        let Matrix::Sparse(joined) = matrices(&[&parts[0], &parts[1]], &targets(), 3).unwrap() else { panic!("dense") };
        assert_eq!((joined.layout(), joined.values()), (Layout::Csr, &Values::U16(vec![8, 7, 8, 7])));
        assert_eq!(joined.to_csr().to_dense(), [0.0, 8.0, 0.0, 7.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 0.0, 7.0]);
    }

    #[test]
    fn matrices_of_several_kinds_become_floats_by_rows() {
        let (a, b) = (dense(1, vec![1_i64, 2]), dense(1, vec![3.5_f32, 4.0]));
        let joined = matrices(&[&a, &b], &targets(), 3).unwrap();
        assert_eq!(
            (joined.dtype(), joined.to_csr().unwrap().to_dense()),
            ("float32", vec![1.0, 2.0, 0.0, 4.0, 0.0, 3.5])
        );
    }

    #[test]
    fn elements_keep_their_type_and_others_are_none() {
        let array = |values: Vec<f64>| Element::Array(Array::matrix(values.len() / 2, 2, values).unwrap());
        let joined = elements(&[&array(vec![1.0, 2.0]), &array(vec![3.0, 4.0])]).unwrap();
        assert_eq!(joined, Some(array(vec![1.0, 2.0, 3.0, 4.0])));
        let wide = Element::Array(Array::matrix(1, 3, vec![0.0_f64; 3]).unwrap());
        assert_eq!(elements(&[&array(vec![1.0, 2.0]), &wide]).unwrap(), None);
        let frame = |n: i32| {
            let mut frame = DataFrame::new([n.to_string()]);
            frame.insert("CD3", vec![n]).unwrap();
            Element::Frame(frame)
        };
        let Some(Element::Frame(joined)) = elements(&[&frame(1), &frame(2)]).unwrap() else { panic!("no frame") };
        assert_eq!(joined.column("CD3").unwrap(), &Column::from(vec![1_i32, 2]));
    }
}
