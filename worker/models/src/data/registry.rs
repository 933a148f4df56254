//! How a reference encoded the fields of its cells, so that query data are encoded the same way.

mod card;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    CATEGORICAL, CONTINUOUS, Cells, Dataset, Encoding, Field, FieldKind, FieldValues, LABELS, Need, OBS, RNA, Slot,
    SlotKind,
    cells::check_length,
    encoding::{LabelNames, Panel, missing},
};
use crate::error::{Error, Result};

/// What a model was trained with: its fields by name, with names and categories of everything.
///
/// The expression of genes is not among them: its panel is the reference's.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "card::OnCard", into = "card::OnCard")]
pub struct Registry {
    fields: BTreeMap<String, Registered>,
    /// Fields of labels that may be new: their codes come after that of cells without a label. Known from the model, and on no card.
    growing: BTreeSet<String>,
}

/// A field of the reference's cells.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// How it was encoded.
    pub encoding: Encoding,
    /// Where it was found, such as `obs/cell_type`, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Registry {
    /// The registry that these cells give to a model that takes these fields.
    ///
    /// # Errors  [`Error::MissingField`], [`Error::FieldKind`]
    pub fn of(fields: &[Field], cells: &Cells<'_>) -> Result<Self> {
        let mut registry = Self::default();
        for field in fields.iter().filter(|field| field.name != RNA) {
            match cells.get(&field.name) {
                _ if is_axis(field) => {
                    let source = cells.source(&field.name).map(str::to_owned);
                    registry = registry.with(field.name.clone(), Encoding::Axis).found_at(&field.name, source);
                }
                Some(values) => {
                    let (encoding, source) = (Encoding::of(field, values)?, cells.source(&field.name));
                    let registered = Registered { encoding, source: source.map(str::to_owned) };
                    registry.fields.insert(field.name.to_string(), registered);
                }
                None if !field.need.is_to_train() => {}
                None => return Err(missing(&field.name)),
            }
        }
        Ok(registry.of_model(fields))
    }

    /// The same registry, where the model says which labels may be new. Those that a query is free to bring are known even where the
    /// reference has none.
    #[must_use]
    pub(crate) fn of_model(mut self, fields: &[Field]) -> Self {
        self.growing = fields.iter().filter(|field| field.grows).map(|field| field.name.to_string()).collect();
        for field in fields.iter().filter(|field| field.grows && field.need == Need::Free) {
            let none = || Registered { encoding: Encoding::Labels(LabelNames::default()), source: None };
            self.fields.entry(field.name.to_string()).or_insert_with(none);
        }
        self
    }

    /// The same registry with one more field.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, encoding: Encoding) -> Self {
        self.fields.insert(name.into(), Registered { encoding, source: None });
        self
    }

    /// The same registry with a word on where a field was found, if it has the field.
    #[must_use]
    pub fn found_at(mut self, name: &str, source: Option<String>) -> Self {
        if let Some(field) = self.fields.get_mut(name) {
            field.source = source;
        }
        self
    }

    /// The same registry once the new labels of these cells have become its own, behind those that it knows; of fields whose labels may
    /// be new.
    #[must_use]
    pub fn grown_by(mut self, cells: &Cells<'_>) -> Self {
        for (name, new) in self.new_labels(cells) {
            if let Some(Registered { encoding: Encoding::Labels(labels), .. }) = self.fields.get_mut(&name) {
                labels.names.extend(new);
            }
        }
        self
    }

    /// The labels of these cells that it does not know, by field; of fields whose labels may be new.
    pub fn new_labels(&self, cells: &Cells<'_>) -> BTreeMap<String, Vec<String>> {
        let growing = self.fields.iter().filter(|(name, _)| self.growing.contains(*name));
        let of_field = |(name, field): (&String, &Registered)| match (&field.encoding, cells.get(name)) {
            (Encoding::Labels(labels), Some(FieldValues::Category(column))) => {
                Some((name.clone(), labels.new_among(column))).filter(|(_, new)| !new.is_empty())
            }
            _ => None,
        };
        growing.filter_map(of_field).collect()
    }

    /// The same registry over another panel of genes; `own` are those that it speaks of.
    #[must_use]
    pub(crate) fn on_panel(mut self, own: &[String], panel: &[String]) -> Self {
        for field in self.fields.values_mut() {
            if let Encoding::GeneSets(sets) = &mut field.encoding {
                *sets = sets.on_panel(own, panel);
            }
        }
        self
    }

    /// The same registry without a field.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.fields.remove(name);
        self
    }

    /// The same registry with the labels that a card keeps apart, in a field of its own.
    #[must_use]
    pub(crate) fn with_labels_of_card(mut self, names: Vec<String>, key: Option<&str>) -> Self {
        let source = key.map(|key| format!("{}{key}", OBS));
        let unlabelled = match self.fields.remove(LABELS).map(|field| field.encoding) {
            Some(Encoding::Labels(LabelNames { unlabelled, .. })) => unlabelled,
            _ => None,
        };
        if !names.is_empty() || unlabelled.is_some() {
            let encoding = Encoding::Labels(LabelNames { names, unlabelled });
            self.fields.insert(LABELS.to_owned(), Registered { encoding, source });
        }
        self
    }

    /// Whether fields are encoded as in another registry, wherever they were found.
    pub fn encodes_like(&self, other: &Self) -> bool {
        let encodings = |registry: &Self| {
            registry.fields.iter().map(|(name, field)| (name.clone(), field.encoding.clone())).collect::<Vec<_>>()
        };
        encodings(self) == encodings(other)
    }

    /// The fields by name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Registered)> {
        self.fields.iter().map(|(name, field)| (name.as_str(), field))
    }

    /// A field, if the reference took it.
    pub fn get(&self, name: &str) -> Option<&Registered> {
        self.fields.get(name)
    }

    /// The obs column that a field was found in, where it was found in one.
    pub fn obs_key(&self, name: &str) -> Option<&str> {
        self.get(name)?.source.as_deref()?.strip_prefix(OBS)
    }

    /// A handle of a field that a module cannot do without.
    ///
    /// # Errors  [`Error::MissingField`] if the reference's cells did not have it, [`Error::FieldKind`]
    pub fn slot<K: SlotKind>(&self, name: &str) -> Result<Slot<K>> {
        self.find(name)?.ok_or_else(|| missing(name))
    }

    /// A handle of a field, if the reference's cells had it.
    ///
    /// # Errors  [`Error::FieldKind`]
    pub fn find<K: SlotKind>(&self, name: &str) -> Result<Option<Slot<K>>> {
        let Some(Registered { encoding, .. }) = self.fields.get(name) else { return Ok(None) };
        if K::of(encoding).is_none() {
            return Err(Error::FieldKind { name: name.to_owned(), found: encoding.kind(), expected: K::NAME });
        }
        let is_before = |(other, field): &(&String, &Registered)| other.as_str() < name && field.encoding.is_per_cell();
        Ok(Some(Slot::new(self.fields.iter().filter(is_before).count(), encoding.width())))
    }

    /// What is remembered of a field of kind `K`, if the reference's cells had it.
    pub fn remembered<K: SlotKind>(&self, name: &str) -> Option<&K::Encoding> {
        K::of(&self.fields.get(name)?.encoding)
    }

    /// The panels of matrices beside gene expression.
    pub fn panels(&self) -> impl Iterator<Item = (&str, &Panel)> {
        self.fields.iter().filter_map(|(name, field)| match &field.encoding {
            Encoding::Matrix(panel) => Some((name.as_str(), panel)),
            _ => None,
        })
    }

    /// Names of the labels by code; none where the model takes no labels.
    pub fn labels(&self) -> &[String] {
        self.remembered::<super::slot::Labels>(LABELS).map(|labels| labels.names.as_slice()).unwrap_or_default()
    }

    /// Number of categories of each categorical covariate, in block order.
    pub fn covariate_sizes(&self) -> Vec<usize> {
        let columns = self.remembered::<super::slot::Categories>(CATEGORICAL);
        columns.map(|columns| columns.values().map(Vec::len).collect()).unwrap_or_default()
    }

    /// Number of continuous covariates.
    pub fn n_continuous(&self) -> usize {
        self.fields.get(CONTINUOUS).map_or(0, |field| field.encoding.width())
    }

    /// Encodes cells. `conditions` holds one code per cell into the conditions that the model is built with.
    ///
    /// # Errors  those of [`Cells::check`], [`Error::MissingField`], [`Error::UnknownCategory`], [`Error::NoCommonFeatures`]
    pub fn encode<'a>(&self, cells: &Cells<'a>, conditions: &[u32], n_genes: usize) -> Result<Dataset<'a>> {
        cells.check(n_genes)?;
        let n_cells = cells.n_cells();
        check_length("condition", "cells", conditions.len(), n_cells)?;
        let conditions = conditions.iter().map(|&code| i64::from(code)).collect();
        let mut dataset = Dataset::new(cells.counts, conditions);
        for (name, Registered { encoding, .. }) in &self.fields {
            match encoding {
                Encoding::Categories(known) => {
                    dataset.covariates.extend(Encoding::encode_columns(known, cells.get(name))?);
                }
                Encoding::GeneSets(_) | Encoding::Axis => {}
                encoding => {
                    let may_grow = self.growing.contains(name);
                    dataset.fields.push(encoding.encode(name, cells.get(name), n_cells, may_grow)?);
                }
            }
        }
        dataset.minified.clone_from(&cells.minified);
        Ok(dataset)
    }
}

fn is_axis(field: &Field) -> bool {
    matches!(field.kind, FieldKind::Axis(_))
}

#[cfg(test)]
mod tests {
    use archipelago_anndata::Csr;
    use ndarray::array;

    use super::*;
    use crate::data::{
        Categorical, Chain, Features, GeneSets, Range, Receptors, SIZE_FACTOR, Values,
        slot::{self, Labels, Matrix},
    };

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn registry() -> Registry {
        Registry::default()
            .with(LABELS, Encoding::Labels(LabelNames { names: texts(&["B", "T"]), unlabelled: None }))
            .with(CATEGORICAL, Encoding::Categories([("assay".to_owned(), texts(&["10x", "drop"]))].into()))
            .with(CONTINUOUS, Encoding::Numbers(texts(&["percent_mito"])))
    }

    fn assays(values: &[&str]) -> BTreeMap<String, Categorical> {
        BTreeMap::from([("assay".to_owned(), Categorical::from_values(values))])
    }

    fn mito(values: &[f32]) -> BTreeMap<String, Vec<f32>> {
        BTreeMap::from([("percent_mito".to_owned(), values.to_vec())])
    }

    fn check(change: impl FnOnce(Cells<'_>) -> Cells<'_>) -> Result<(), String> {
        let counts = Csr::from_dense(2, 1, &[1.0, 2.0]).unwrap();
        let cells = Cells::new(&counts)
            .with(LABELS, Categorical::from_values(&["T", "T"]))
            .with(CATEGORICAL, assays(&["drop", "10x"]))
            .with(CONTINUOUS, mito(&[0.1, 0.2]));
        let dataset = registry().encode(&change(cells), &[0, 0], 1).map_err(|e| e.to_string())?;
        let labels = registry().slot::<Labels>(LABELS).unwrap();
        assert_eq!((dataset.codes(labels), &dataset.covariates[0]), (&[1, 1][..], &vec![1, 0]));
        Ok(())
    }

    #[test]
    fn query_names_get_the_codes_of_the_reference() {
        check(|cells| cells).unwrap();
    }

    #[test]
    fn what_the_reference_does_not_know_is_named() {
        let label = check(|cells| cells.with(LABELS, Categorical::from_values(&["T", "NK"]))).unwrap_err();
        assert_eq!(label, "`labels` holds `NK`, which the reference does not know; it knows `B`, `T`");
        assert!(check(|cells| cells.with(CATEGORICAL, assays(&["10x", "smart"]))).unwrap_err().contains("`smart`"));
    }

    #[test]
    fn cells_without_a_label_get_the_code_behind_the_labels() {
        let counts = Csr::from_dense(3, 1, &[1.0, 2.0, 3.0]).unwrap();
        let labelled = |values: &[&str]| Cells::new(&counts).with(LABELS, Categorical::from_values(values));
        let registry = Registry::of(&[Field::some_labels("?".to_owned())], &labelled(&["?", "B", "T"])).unwrap();
        assert_eq!(registry.labels(), ["T", "B"], "the last category takes the place of `?`");
        let slot = registry.slot::<Labels>(LABELS).unwrap();
        let codes = |cells: Cells<'_>| {
            let dataset = registry.encode(&cells, &[0; 3], 1)?;
            Ok::<_, Error>((0..3).map(|cell| dataset.is_labelled(slot, cell)).collect::<Vec<_>>())
        };
        assert_eq!(codes(labelled(&["B", "?", "B"])).unwrap(), [true, false, true]);
        assert_eq!(codes(Cells::new(&counts)).unwrap(), [false; 3]);
        assert!(codes(labelled(&["B", "NK", "B"])).is_err());
    }

    #[test]
    fn labels_that_are_new_are_told_apart_where_they_may_be() {
        let counts = Csr::from_dense(3, 1, &[1.0, 2.0, 3.0]).unwrap();
        let labelled = |values: &[&str]| Cells::new(&counts).with(LABELS, Categorical::from_values(values));
        let of = |field| Registry::of(&[field], &labelled(&["?", "B", "T"])).unwrap();
        let query = labelled(&["NK", "B", "?"]);
        let closed = of(Field::some_labels("?".to_owned()));
        assert!(closed.encode(&query, &[0; 3], 1).is_err());
        assert_eq!(closed.clone().grown_by(&query), closed);
        let registry = of(Field::some_labels("?".to_owned()).growing());
        let dataset = registry.encode(&query, &[0; 3], 1).unwrap();
        let slot = registry.slot::<Labels>(LABELS).unwrap();
        assert_eq!((dataset.codes(slot), dataset.new_labels(slot)), (&[3, 1, 2][..], &texts(&["NK"])[..]));
        assert!(!dataset.is_labelled(slot, 0), "nothing that was learnt is about it");
        let grown = registry.grown_by(&query);
        assert_eq!(grown.labels(), ["T", "B", "NK"]);
        assert_eq!(grown.encode(&query, &[0; 3], 1).unwrap().codes(slot), [2, 1, 3]);
    }

    /// The code of cells without a label is kept free, whether or not a category stands for them.
    #[test]
    fn a_query_is_free_to_bring_labels_that_the_reference_lacks() {
        let counts = Csr::from_dense(2, 1, &[1.0, 2.0]).unwrap();
        let field = || Field::new(LABELS, FieldKind::Labels { unlabelled: None }, Need::Free, "").growing();
        let labelled = Cells::new(&counts).with(LABELS, Categorical::from_values(&["B", "NK"]));
        for (registry, codes, new) in [
            (Registry::of(&[field()], &Cells::new(&counts)).unwrap(), [1, 2], &["B", "NK"][..]),
            (registry().of_model(&[field()]).without(CATEGORICAL).without(CONTINUOUS), [0, 3], &["NK"]),
        ] {
            let slot = registry.slot::<Labels>(LABELS).unwrap();
            let dataset = registry.encode(&labelled, &[0; 2], 1).unwrap();
            assert_eq!((dataset.codes(slot), dataset.new_labels(slot)), (&codes[..], &texts(new)[..]));
            let none = registry.encode(&Cells::new(&counts), &[0; 2], 1).unwrap();
            assert_eq!(none.codes(slot), [slot.width() as i64; 2]);
            assert!(none.new_labels(slot).is_empty());
        }
    }

    #[test]
    fn missing_fields_and_lengths_that_differ_are_refused() {
        assert!(check(|cells| cells.without(LABELS)).unwrap_err().contains("`labels`"));
        assert!(check(|cells| cells.without(CATEGORICAL)).unwrap_err().contains("`assay`"));
        assert!(check(|cells| cells.without(CONTINUOUS)).unwrap_err().contains("`percent_mito`"));
        let short = check(|cells| cells.with(CONTINUOUS, mito(&[0.1]))).unwrap_err();
        assert_eq!(short, "`percent_mito` has 1 cells, expected 2");
        let counts = Csr::zeros(1, 1);
        let lacking = Registry::of(&[Field::labels()], &Cells::new(&counts)).unwrap_err().to_string();
        assert_eq!(lacking, "the model takes `labels`, which the data lack");
    }

    #[test]
    fn values_that_are_not_numbers_of_their_kind_are_refused() {
        assert!(check(|cells| cells.with(CONTINUOUS, mito(&[0.1, f32::NAN]))).is_err());
        let factors = Registry::default().with(SIZE_FACTOR, Encoding::Number(Range::Positive));
        let counts = Csr::zeros(2, 1);
        let encode = |values: Vec<f32>| factors.encode(&Cells::new(&counts).with(SIZE_FACTOR, values), &[0, 0], 1);
        encode(vec![1.0, 0.5]).unwrap();
        assert!(encode(vec![1.0, 0.0]).is_err());
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            let counts = Csr::from_dense(1, 1, &[bad]).unwrap();
            assert!(matches!(Cells::new(&counts).check(1), Err(Error::Value { .. })), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_field_and_one_of_another_kind_are_refused_when_a_module_is_built() {
        let registry = registry();
        assert!(registry.slot::<Labels>("lables").unwrap_err().to_string().contains("`lables`"));
        assert!(registry.find::<Matrix>("proteins").unwrap().is_none());
        let wrong = registry.slot::<Matrix>(LABELS).unwrap_err().to_string();
        assert_eq!(wrong, "`labels` is of the kind labels, expected matrix");
    }

    #[test]
    fn every_kind_becomes_a_tensor_of_its_shape() {
        let counts = Csr::from_dense(2, 1, &[1.0, 2.0]).unwrap();
        let optional = |name, kind| Field::new(name, kind, Need::Optional, "");
        let fields = [
            Field::rna(Values::Counts),
            optional("atac", FieldKind::Matrix(Values::LogNormalised)),
            optional("donor", FieldKind::Category),
            optional("place", FieldKind::Coordinates),
            optional("tcr", FieldKind::Receptor { chains: vec![Chain::Beta], length: None }),
            optional("pathways", FieldKind::GeneSets),
            optional("nowhere", FieldKind::Category),
        ];
        let peaks = Features::dense(texts(&["p", "q"]), &array![[0.5, 0.0], [0.0, 1.5]]).unwrap();
        let sets = GeneSets::new(texts(&["term"]), vec![vec![0]], 1).unwrap();
        let cells = Cells::new(&counts)
            .with("atac", peaks)
            .with("donor", Categorical::from_values(&["y", "x"]))
            .with("place", array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
            .with("tcr", Receptors::new(vec![(Chain::Beta, texts(&["CA", "A"]))]))
            .with("pathways", sets.clone());
        let registry = Registry::of(&fields, &cells).unwrap();
        assert_eq!(registry.remembered::<slot::GeneSets>("pathways"), Some(&sets));
        assert_eq!(registry.slot::<slot::GeneSets>("pathways").unwrap().width(), 1);
        let dataset = registry.encode(&cells, &[0, 0], 1).unwrap();
        let minibatch = dataset.minibatch(&[1, 0], tch::Device::Cpu);
        let check = |found: &tch::Tensor, expected: &tch::Tensor| assert!(found.equal(expected), "{found}");
        check(
            minibatch.get(registry.slot::<Matrix>("atac").unwrap()),
            &tch::Tensor::from_slice2(&[[0_f32, 1.5], [0.5, 0.0]]),
        );
        check(minibatch.get(registry.slot::<slot::Category>("donor").unwrap()), &tch::Tensor::from_slice(&[0_i64, 1]));
        let places = tch::Tensor::from_slice2(&[[4_f32, 5.0, 6.0], [1.0, 2.0, 3.0]]);
        check(minibatch.get(registry.slot::<slot::Coordinates>("place").unwrap()), &places);
        check(
            minibatch.get(registry.slot::<slot::Receptor>("tcr").unwrap()),
            &tch::Tensor::from_slice2(&[[1_i64, 0], [2, 1]]),
        );

        let card = serde_json::to_value(&registry).unwrap();
        assert_eq!(serde_json::from_value::<Registry>(card).unwrap(), registry);
        let wrong = cells.with("donor", vec![1.0_f32, 2.0]);
        assert_eq!(
            registry.encode(&wrong, &[0, 0], 1).unwrap_err().to_string(),
            "`donor` is of the kind number, expected category"
        );
    }
}
