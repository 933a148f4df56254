//! Other spellings of the map of fields: the flags that the field knows, and the entries of older configurations.
//!
//! Everything else of this program speaks of fields by name; this file is the only one that knows these words.

use archipelago_models::data::{CATEGORICAL, CONTINUOUS, GENE_SETS, LABELS, NEW_GENE_SETS, RNA, SIZE_FACTOR};
use clap::Args;
use serde::Deserialize;

use super::{Source, SourceMap};

/// Where fields are, on the command line.
#[derive(Args, Debug, Default)]
pub struct FieldArgs {
    /// Where a field of the model is, as `NAME=PLACE`; several times for several, such as
    /// `--field labels=obs/cell_type --field proteins=mod/prot`. `archipelago-worker models NAME` lists a model's fields
    #[arg(long = "field", value_name = "NAME=PLACE", value_parser = named_place)]
    pub fields: Vec<(String, Source)>,
    /// The layer that holds the expression, or `raw` [default: X]
    #[arg(long)]
    pub layer: Option<String>,
    /// The obs column that names cell types.
    #[arg(long)]
    pub labels_key: Option<String>,
    /// The obs column of size factors, for a model that takes them [default: as in the reference]
    #[arg(long)]
    pub size_factor_key: Option<String>,
    /// The key of obsm that holds protein counts [default: as in the reference]
    #[arg(long)]
    pub protein_obsm_key: Option<String>,
    /// The key of uns that holds the proteins' names [default: the names of the columns]
    #[arg(long, requires = "protein_obsm_key")]
    pub protein_names_uns_key: Option<String>,
    /// The modality of an h5mu file that holds protein counts [default: as in the reference]
    #[arg(long, conflicts_with = "protein_obsm_key")]
    pub protein_modality: Option<String>,
    /// The layer of that modality that holds protein counts [default: X]
    #[arg(long, requires = "protein_modality")]
    pub protein_layer: Option<String>,
    /// The modality of an h5mu file that holds RNA counts [default: rna]
    #[arg(long)]
    pub rna_modality: Option<String>,
    /// The cells have no proteins: all of the reference's are missing, and can be imputed.
    #[arg(long, conflicts_with_all = ["protein_obsm_key", "protein_modality"])]
    pub without_proteins: bool,
}

/// Where fields are, in the words of a site's `[data]` section before it had a map of them.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct FieldSpellings {
    layer: Option<String>,
    labels_key: Option<String>,
    proteins: Option<ProteinPlace>,
    without_proteins: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProteinPlace {
    Obsm {
        key: String,
        #[serde(default)]
        names: Option<String>,
    },
    Modality(String),
}

impl FieldArgs {
    /// The map that is meant.
    pub fn sources(&self) -> SourceMap {
        let mut sources: SourceMap = self.fields.iter().cloned().collect();
        let (modality, layer) = (self.rna_modality.clone(), self.layer.clone());
        if modality.is_some() || layer.is_some() {
            sources.set(RNA, Source::Matrix { modality, layer });
        }
        for (field, column) in [(LABELS, &self.labels_key), (SIZE_FACTOR, &self.size_factor_key)] {
            column.iter().for_each(|column| sources.set(field, Source::obs(column)));
        }
        if let Some(key) = self.protein_obsm_key.clone() {
            sources.set(PROTEINS, Source::Obsm { key, names: self.protein_names_uns_key.clone() });
        }
        if let Some(modality) = self.protein_modality.clone() {
            sources.set(PROTEINS, Source::Matrix { modality: Some(modality), layer: self.protein_layer.clone() });
        }
        if self.without_proteins {
            sources.set(PROTEINS, Source::Nowhere);
        }
        sources
    }
}

impl FieldSpellings {
    /// Takes what it knows out of a section.
    ///
    /// # Errors  entries of another form
    pub fn take_from(section: &mut toml::Table) -> Result<Self, toml::de::Error> {
        let known = ["layer", "labels_key", "proteins", "without_proteins"];
        let taken = known.into_iter().filter_map(|key| section.remove_entry(key));
        toml::Value::Table(taken.collect()).try_into()
    }

    /// Adds to a map what is meant; what the map says itself comes first.
    pub fn add_to(self, sources: &mut SourceMap) {
        let Self { layer, labels_key, proteins, without_proteins } = self;
        let place = |proteins| match proteins {
            ProteinPlace::Obsm { key, names } => Source::Obsm { key, names },
            ProteinPlace::Modality(name) => Source::modality(name),
        };
        let proteins = if without_proteins { Some(Source::Nowhere) } else { proteins.map(place) };
        let meant = [
            (RNA, layer.map(|layer| Source::layer(Some(layer)))),
            (LABELS, labels_key.map(Source::obs)),
            (PROTEINS, proteins),
        ];
        for (field, place) in meant {
            if let Some(place) = place.filter(|_| sources.get(field).is_none()) {
                sources.set(field, place);
            }
        }
    }
}

/// The flag that says where a field is.
pub fn flag_of(field: &str) -> Option<&'static str> {
    Some(match field {
        LABELS => "--labels-key",
        SIZE_FACTOR => "--size-factor-key",
        CATEGORICAL => "--categorical-covariate-keys",
        CONTINUOUS => "--continuous-covariate-keys",
        PROTEINS => "--protein-obsm-key",
        RNA => "--layer",
        GENE_SETS => "--gene-sets",
        NEW_GENE_SETS => "--new-gene-sets",
        _ => return None,
    })
}

fn named_place(text: &str) -> Result<(String, Source), String> {
    let (name, place) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected NAME=PLACE")?;
    Ok((name.to_owned(), place.parse()?))
}

/// The field whose flags have a name of their own.
const PROTEINS: &str = "proteins";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_spellings_of_the_map() {
        let args = FieldArgs {
            fields: vec![named_place("atac=mod/atac").unwrap()],
            layer: Some("counts".to_owned()),
            labels_key: Some("cell_type".to_owned()),
            protein_obsm_key: Some("adt".to_owned()),
            protein_names_uns_key: Some("names".to_owned()),
            ..FieldArgs::default()
        };
        let expected = "atac = \"mod/atac\"\nlabels = \"obs/cell_type\"\nproteins = \"obsm/adt@uns/names\"\n\
                        rna = \"layers/counts\"";
        assert_eq!(args.sources(), toml::from_str(expected).unwrap());
        let (protein_modality, protein_layer) = (Some("prot".to_owned()), Some("counts".to_owned()));
        let layered = FieldArgs { protein_modality, protein_layer, ..FieldArgs::default() };
        assert_eq!(layered.sources(), toml::from_str("proteins = \"mod/prot/layers/counts\"").unwrap());
        assert!(named_place("atac").is_err() && named_place("=X").is_err() && named_place("a=b").is_err());
    }

    #[test]
    fn older_configurations_mean_the_same_places() {
        let check = |old: &str, new: &str| {
            let mut sources = SourceMap::default();
            toml::from_str::<FieldSpellings>(old).unwrap().add_to(&mut sources);
            assert_eq!(sources, toml::from_str(new).unwrap(), "{old}");
        };
        check("layer = \"counts\"\nlabels_key = \"type\"", "rna = \"layers/counts\"\nlabels = \"obs/type\"");
        check("proteins = { obsm = { key = \"adt\" } }", "proteins = \"obsm/adt\"");
        check("proteins = { modality = \"prot\" }", "proteins = \"mod/prot\"");
        check("without_proteins = true", "proteins = \"none\"");
    }
}
