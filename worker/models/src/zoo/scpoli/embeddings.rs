//! Embeddings: a row of numbers for each condition, or one for each of its keys where there are several.

use archipelago_common::{Name, Section};
use tch::{Tensor, no_grad};

use crate::{
    data::Covariates,
    error::Result,
    fast::Embedded,
    nn::{Builder, Init, Levels as Rows, Role},
};

/// The tables of embeddings. With one key its table is that of the conditions; with several the conditions are their combinations, and
/// each key is an axis with a table.
#[derive(Debug)]
pub struct Embeddings {
    tables: Tables,
    max_norm: f64,
}

#[derive(Debug)]
enum Tables {
    OfConditions(Tensor),
    OfKeys(Vec<Rows>),
}

impl Embeddings {
    /// Tables of so many numbers a row, one for all or one for each of several keys; tensors `embeddings.{i}.weight.row`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn new(b: &mut Builder<'_>, keys: &[Name], dims: &[usize], max_norm: f64) -> Result<Self> {
        let (role, init) = (Role::Condition, Init::Normal);
        if keys.is_empty() {
            let rows = b.rows_on(&Section::Condition, &tensor_name(0), &dims[..1], role, init)?;
            return Ok(Self { tables: Tables::OfConditions(rows), max_norm });
        }
        let table = |(i, key): (usize, &Name)| {
            let n = dims[if dims.len() == 1 { 0 } else { i }];
            b.levels(key, &tensor_name(i), &[n], role, init)
        };
        let tables = keys.iter().enumerate().map(table).collect::<Result<_>>()?;
        Ok(Self { tables: Tables::OfKeys(tables), max_norm })
    }

    /// Numbers that stand for a cell's conditions.
    pub fn n_numbers(&self) -> usize {
        self.tables().iter().map(|table| table.size()[1] as usize).sum()
    }

    /// The tables, `[n_keys, n_numbers]` each.
    pub fn tables(&self) -> Vec<Tensor> {
        match &self.tables {
            Tables::OfConditions(rows) => vec![rows.shallow_clone()],
            Tables::OfKeys(tables) => tables.iter().map(Rows::rows).collect(),
        }
    }

    /// What the kernels are told about the embeddings of conditions; nothing where there are several keys.
    pub(super) fn spec(&self) -> Option<Embedded> {
        match &self.tables {
            Tables::OfConditions(_) => Some(Embedded { rows: tensor_name(0), max_norm: self.max_norm }),
            Tables::OfKeys(_) => None,
        }
    }

    /// The embeddings of cells, `[n, n_numbers]`. A row that is looked up and too long is shortened where it stands, outside the gradient:
    /// what is kept of a row that the optimiser has moved can be longer than one that has been used since. Rows that the base shares stay
    /// as they are; they are shortened on the way.
    pub fn look_up(&self, covariates: &Covariates) -> Tensor {
        match &self.tables {
            Tables::OfConditions(rows) => {
                self.shorten(rows, &covariates.condition);
                rows.index_select(0, &covariates.condition)
            }
            Tables::OfKeys(tables) => {
                let of_key = |(table, codes): (&Rows, &Tensor)| self.of_key(table, codes);
                Tensor::cat(&tables.iter().zip(&covariates.axes).map(of_key).collect::<Vec<_>>(), 1)
            }
        }
    }

    fn of_key(&self, table: &Rows, codes: &Tensor) -> Tensor {
        let Some(shared) = table.shared() else {
            self.shorten(table.own(), codes);
            return table.own().index_select(0, codes);
        };
        let n_shared = shared.size()[0];
        let own = codes.masked_select(&codes.ge(n_shared)) - n_shared;
        if own.numel() > 0 {
            self.shorten(table.own(), &own);
        }
        let all = Tensor::arange(n_shared, (tch::Kind::Int64, codes.device()));
        let shortened = no_grad(|| shared.embedding_renorm(&all, self.max_norm, 2.0));
        Tensor::cat(&[&shortened, table.own()], 0).index_select(0, codes)
    }

    fn shorten(&self, rows: &Tensor, codes: &Tensor) {
        let _ = no_grad(|| rows.shallow_clone().embedding_renorm_(codes, self.max_norm, 2.0));
    }
}

/// Our name of a table.
fn tensor_name(i: usize) -> String {
    format!("embeddings.{i}.weight.row")
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::nn::{ConditionSource, Source, Trainable};

    fn embeddings(dims: &[usize], n_axes: usize) -> Embeddings {
        let fresh = ConditionSource::Fresh(3);
        let mut b = Builder::new(Source::Fresh, fresh, Trainable::Everything, [1; 32], Device::Cpu);
        let keys: Vec<Name> = (0..n_axes).map(|i| format!("key{i}").parse().unwrap()).collect();
        for (i, key) in keys.iter().enumerate() {
            b = b.with_axis(key.clone(), ConditionSource::Fresh(2 + i));
        }
        Embeddings::new(&mut b, &keys, dims, 1.0).unwrap()
    }

    #[test]
    fn rows_that_the_base_shares_are_shortened_on_the_way_and_stay() {
        let key: Name = "assay".parse().unwrap();
        let long = archipelago_common::Tensor::from_f32(&[2, 2], &[3.0, 4.0, 0.3, 0.4]);
        let base = [("embeddings.0.weight.row.shared".to_owned(), long.clone())].into_iter().collect();
        let builder =
            Builder::new(Source::Stored(&base), ConditionSource::Fresh(1), Trainable::Conditions, [1; 32], Device::Cpu);
        let mut b = builder.with_axis(key.clone(), ConditionSource::Fresh(1)).sharing(key.clone(), 2);
        let embeddings = Embeddings::new(&mut b, &[key], &[2], 1.0).unwrap();
        let axes = vec![Tensor::from_slice(&[0_i64, 2, 1])];
        let condition = Tensor::from_slice(&[0_i64, 0, 0]);
        let found = embeddings.look_up(&Covariates { condition, axes, categorical: vec![] });
        let lengths = Vec::<f64>::try_from(found.norm_scalaropt_dim(2.0, [1_i64].as_slice(), false)).unwrap();
        assert!((lengths[0] - 1.0).abs() < 1e-5 && (lengths[2] - 0.5).abs() < 1e-5, "{lengths:?}");
        assert_eq!(b.finish().base().get("embeddings.0.weight.row.shared"), Some(&long));
    }

    #[test]
    fn rows_that_are_looked_up_are_shortened_where_they_stand_and_others_are_not() {
        let embeddings = embeddings(&[4], 0);
        let table = embeddings.tables()[0].shallow_clone();
        let _ = no_grad(|| table.shallow_clone().fill_(2.0));
        let condition = Tensor::from_slice(&[2_i64, 0, 2]);
        let found = embeddings.look_up(&Covariates { condition, axes: vec![], categorical: vec![] });
        assert_eq!(found.size(), [3, 4]);
        let lengths = Vec::<f64>::try_from(table.norm_scalaropt_dim(2.0, [1_i64].as_slice(), false)).unwrap();
        assert!((lengths[0] - 1.0).abs() < 1e-5 && (lengths[2] - 1.0).abs() < 1e-5 && lengths[1] == 4.0, "{lengths:?}");
        // The gradient is that of a look-up: the shortening is no part of it.
        found.sum(Kind::Float).backward();
        let gradient = Vec::<f64>::try_from(table.grad().select(1, 0)).unwrap();
        assert_eq!(gradient, [1.0, 0.0, 2.0]);
    }

    #[test]
    fn each_key_has_a_table_and_each_table_its_width() {
        let two = embeddings(&[3, 2], 2);
        assert_eq!((two.n_numbers(), two.tables()[1].size()), (5, vec![3, 2]));
        let axes = vec![Tensor::from_slice(&[0_i64, 1]), Tensor::from_slice(&[2_i64, 2])];
        let condition = Tensor::from_slice(&[0_i64, 0]);
        let found = two.look_up(&Covariates { condition, axes, categorical: vec![] });
        assert_eq!(found.size(), [2, 5]);
        assert!(found.get(1).narrow(0, 3, 2) == two.tables()[1].get(2));
        assert_eq!(embeddings(&[3], 2).n_numbers(), 6);
    }
}
