//! Which cells are read, what of them, and where it is.

use std::path::PathBuf;

use archipelago_analysis::preprocess::SetOptions;
use archipelago_anndata::align::Duplicates;
use archipelago_common::BaseCard;
use archipelago_models::{
    Blueprint,
    data::{Encoding, Field, FieldKind, LABELS, Need, RNA, Registered, Values},
    model::{Configured, Model},
};

use super::joint::JOINT;
use crate::{
    error::{Error, Result},
    fields::{Source, SourceMap, separated},
    recipe::Stored,
};

/// Which cells of a file, and under which names.
#[derive(Clone, PartialEq, Debug)]
pub struct DataSpec {
    /// The h5ad file.
    pub path: PathBuf,
    /// The obs column that names the batch. Where a model takes several condition keys, what they are called together.
    pub batch_key: String,
    /// Where fields are.
    pub fields: SourceMap,
    /// Where a reference found fields that a query need not have: read there if nothing else is said and the file has them.
    pub usual: SourceMap,
    /// What is taken of a cell; its expression if nothing more.
    pub takes: Vec<Field>,
    /// The obs column that names donors.
    pub donor_key: Option<String>,
    /// The batches to use, as `lists::among` reads them; all if none is named.
    pub batches: Vec<String>,
    /// What to do with a gene that the file names more than once.
    pub duplicate_genes: Duplicates,
    /// Whether expression that is no whole numbers counts as counts, such as what is left when ambient RNA was taken out.
    pub fractional_counts: bool,
    /// Which gene sets are taken, of a model that takes some.
    pub sets: SetOptions,
    /// How the reference's cells were prepared, for a file that is not prepared yet.
    pub recipe: Option<Stored>,
    /// What a reference may have done with the cells; everything where a person chose it.
    pub consent: Option<Consent>,
}

/// What a reference that others made may have done with a site's cells.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Consent {
    /// Columns of obs by their names, or places, that its card may have read.
    pub may_read: Vec<String>,
    /// Whether its recipe may leave cells out.
    pub cell_filters: bool,
}

impl Consent {
    /// Whether the card may have a place read. What was measured of the cells and what is known of genes is what models are about.
    fn lets_read(&self, place: &Source) -> bool {
        let is_listed = |text: &str| self.may_read.iter().any(|listed| listed == text);
        match place {
            Source::Obs(column) => is_listed(column) || is_listed(&place.to_string()),
            Source::Obsm { key, .. } => is_listed(&format!("obsm/{key}")),
            Source::File(_) => false,
            Source::Varm { .. } | Source::Matrix { .. } | Source::Nowhere => true,
        }
    }
}

impl DataSpec {
    /// All cells of a file, counts in `X`, and nothing else of them.
    pub fn new(path: impl Into<PathBuf>, batch_key: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            batch_key: batch_key.into(),
            fields: SourceMap::default(),
            usual: SourceMap::default(),
            takes: vec![Field::rna(Values::Counts)],
            donor_key: None,
            batches: vec![],
            duplicate_genes: Duplicates::Refuse,
            fractional_counts: false,
            sets: SetOptions::default(),
            recipe: None,
            consent: None,
        }
    }

    /// The same cells as a model takes them that is trained on them.
    ///
    /// # Errors  [`Error::FieldNotGiven`] for a field that the model cannot do without, [`Error::UnknownField`]
    pub fn to_train(self, model: &dyn Model, configured: &dyn Configured) -> Result<Self> {
        let mut spec = Self { takes: configured.fields(), ..self };
        spec.check_names(model.card().name)?;
        for axis in spec.axis_names() {
            if spec.fields.get(&axis).is_none() {
                spec.fields.set(axis.clone(), Source::obs(axis));
            }
        }
        spec.name_batches();
        let is_placed =
            |field: &&Field| spec.fields.get(&field.name).is_some_and(|places| !places.contains(&Source::Nowhere));
        let needed = |field: &&Field| field.need.is_to_train() && field.name != RNA;
        match spec.takes.iter().filter(needed).find(|field| !is_placed(field)) {
            None => Ok(spec),
            Some(field) => Err(not_given(model.card().name, field)),
        }
    }

    /// The same cells as a reference takes them: with every field that it took, where it found them unless something else is
    /// said, and prepared as its own cells were. What it does not take is left out; labels stay, for the site's own use.
    ///
    /// # Errors  [`Error::Models`] if the card cannot be read, [`Error::CardRecipe`], [`Error::FieldNotGiven`], [`Error::MayNotRead`]
    pub fn seen_through(self, card: &BaseCard) -> Result<Self> {
        let own = self.fields.clone();
        let Blueprint { registry, model, .. } = Blueprint::of_card(card)?;
        let takes = model.fields();
        let is_taken = |field: &Field| {
            registry.get(&field.name).is_some() && !field.kind.is_of_the_reference() || field.name == RNA
        };
        let takes: Vec<Field> = takes.into_iter().filter(is_taken).collect();
        let mut spec = Self { takes, ..self }.remembering(card)?;
        let left_out: Vec<String> =
            spec.fields.names().filter(|name| !spec.has_use_of(name)).map(str::to_owned).collect();
        left_out.iter().for_each(|name| spec.fields.remove(name));
        spec.check_consent(&own)?;
        spec.name_batches();
        let needed = spec.takes.iter().filter(|field| field.need != Need::ToTrain && !field.grows && field.name != RNA);
        match needed.into_iter().find(|field| spec.fields.get(&field.name).or(spec.usual.get(&field.name)).is_none()) {
            None => Ok(spec),
            Some(field) => Err(not_given(&card.model, field)),
        }
    }

    /// The same cells, with fields where a reference found them unless something else is said.
    ///
    /// # Errors  [`Error::Models`] if the card cannot be read, [`Error::CardRecipe`]
    pub fn remembering(mut self, card: &BaseCard) -> Result<Self> {
        for (name, registered) in Blueprint::of_card(card)?.registry.fields() {
            let places = remembered(name, registered);
            match registered.encoding {
                Encoding::Labels(_) => self.usual.set_all(name, places),
                _ if self.fields.get(name).is_none() => self.fields.set_all(name, places),
                _ => {}
            }
        }
        let mut recipe = Stored::in_card(card)?;
        if let (Some(stored), Some(Consent { cell_filters: false, .. })) = (&mut recipe, &self.consent)
            && stored.recipe.filter_cells.take().is_some()
        {
            tracing::warn!("the reference's recipe leaves cells out; here it leaves out none (`tasks.cell_filters`)");
        }
        Ok(Self { recipe, ..self })
    }

    /// Refuses what the card alone names and the site does not let it read. Labels are left out: a query need not have any.
    fn check_consent(&mut self, own: &SourceMap) -> Result<()> {
        if self.consent.is_none() {
            return Ok(());
        }
        let is_refused = |place: &&Source| !self.lets_read(own, place);
        let mut from_card = self.fields.iter().filter(|(name, _)| own.get(name).is_none());
        if let Some((field, place)) = from_card.find_map(|(name, places)| Some((name, places.iter().find(is_refused)?)))
        {
            return Err(Error::MayNotRead { field: field.to_owned(), place: place.to_string() });
        }
        let refused = self.usual.iter().filter(|(_, places)| places.iter().any(|place| is_refused(&place)));
        let refused: Vec<String> = refused.map(|(name, _)| name.to_owned()).collect();
        for name in refused.iter().filter(|name| own.get(name).is_none()) {
            tracing::info!(field = name, "the reference's own place for it is not read: the site does not name it");
        }
        refused.iter().for_each(|name| self.usual.remove(name));
        Ok(())
    }

    /// Whether a place may be read that a card names: one that the site lists, or has read itself.
    fn lets_read(&self, own: &SourceMap, place: &Source) -> bool {
        let is_own = |places: &[Source]| places.contains(place);
        *place == Source::obs(&self.batch_key)
            || own.iter().any(|(_, places)| is_own(places))
            || self.consent.as_ref().is_none_or(|consent| consent.lets_read(place))
    }

    /// The condition keys, where a model takes several; none where the batch is one column.
    pub fn axes(&self) -> impl Iterator<Item = &Field> {
        self.takes.iter().filter(|field| matches!(field.kind, FieldKind::Axis(_)))
    }

    fn axis_names(&self) -> Vec<String> {
        self.axes().map(|field| field.name.to_string()).collect()
    }

    fn name_batches(&mut self) {
        let names = self.axis_names();
        if !names.is_empty() {
            self.batch_key = names.join(JOINT);
        }
    }

    /// Refuses a batch column for a model whose condition keys name the batches.
    ///
    /// # Errors  [`Error::BatchKeyOfSeveral`]
    pub fn check_batch_key(&self, given: Option<&str>) -> Result<()> {
        match given {
            Some(found) if self.axes().next().is_some() => {
                Err(Error::BatchKeyOfSeveral { found: found.to_owned(), keys: self.axis_names().join("`, `") })
            }
            _ => Ok(()),
        }
    }

    fn has_use_of(&self, name: &str) -> bool {
        name == LABELS || self.takes.iter().any(|field| field.name == name)
    }

    /// Refuses places of fields that a model does not take. Labels that it does not take are for the site's own use.
    ///
    /// # Errors  [`Error::UnknownField`]
    pub fn check_names(&self, model: &str) -> Result<()> {
        match self.fields.names().find(|name| !self.has_use_of(name)) {
            None => Ok(()),
            Some(name) => {
                let known: Vec<String> = self.takes.iter().map(|field| format!("`{}`", field.name)).collect();
                Err(Error::UnknownField { model: model.to_owned(), name: name.to_owned(), known: known.join(", ") })
            }
        }
    }

    /// Fields other than expression with their places, and whether a file need not have them there.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (&str, &[Source], bool)> {
        let given = self.fields.iter().filter(|(name, _)| *name != RNA).map(|(name, places)| (name, places, false));
        let usual = self.usual.iter().filter(|(name, _)| self.fields.get(name).is_none());
        given.chain(usual.map(|(name, places)| (name, places, true)))
    }

    /// What the numbers of gene expression are.
    pub fn values(&self) -> Values {
        let of_rna = |field: &Field| match field.kind {
            FieldKind::Matrix(values) if field.name == RNA => Some(values),
            _ => None,
        };
        self.takes.iter().find_map(of_rna).unwrap_or(Values::Counts)
    }
}

/// Where a reference found a field.
fn remembered(name: &str, field: &Registered) -> Vec<Source> {
    match &field.encoding {
        Encoding::Axis if field.source.is_none() => vec![Source::obs(name)],
        Encoding::Categories(columns) => columns.keys().map(Source::obs).collect(),
        Encoding::Numbers(columns) => columns.iter().map(Source::obs).collect(),
        Encoding::Receptor(_) => field.source.as_deref().map(separated).unwrap_or_default(),
        _ => field.source.iter().filter_map(|source| source.parse().ok()).collect(),
    }
}

fn not_given(model: &str, field: &Field) -> Error {
    Error::FieldNotGiven { model: model.to_owned(), name: field.name.to_string(), help: field.help }
}
