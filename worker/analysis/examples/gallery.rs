//! Draws every chart once, on made-up cells, into a directory: for looking at after a change to the drawing code.
//!
//! `cargo run --release -p archipelago-analysis --example gallery -- <directory>`

use std::path::PathBuf;

use archipelago_analysis::metrics::Confusion;
use archipelago_analysis::plot::{
    BarSeries, Bars, Colouring, DotPlot, Figure, Heatmap, LineSeries, Lines, Palette, Panel, Sankey, Scatter, Theme,
    Violin,
};
use archipelago_analysis::umap::{Umap, umap};
use archipelago_analysis::{CsrView, Labels};
use ndarray::{Array1, Array2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("name a directory for the pictures")?);
    std::fs::create_dir_all(&directory)?;
    for (name, theme) in [("light", Theme::LIGHT), ("dark", Theme::DARK)] {
        for (chart, figure) in figures(&theme)? {
            std::fs::write(directory.join(format!("{chart}-{name}.svg")), figure.svg())?;
            std::fs::write(directory.join(format!("{chart}-{name}.png")), figure.png(2.0)?)?;
        }
    }
    Ok(())
}

fn figures(theme: &Theme) -> Outcome<Vec<(&'static str, Figure)>> {
    let one = |panel: Panel| Figure::grid(None, &[panel], 1, theme);
    Ok(vec![
        ("scatter", Figure::grid(Some("Query on reference"), &few_types(theme)?, 2, theme)),
        ("many-types", one(many_types(theme)?)),
        ("lines", one(losses(theme)?)),
        ("bars", one(figures_of_methods(theme)?)),
        ("transfer", Figure::grid(None, &transfer(theme)?, 2, theme)),
        ("violin", one(uncertainty(theme)?)),
        ("dots", one(markers(theme)?)),
    ])
}

/// Cells around random centres, one per type, with a shift per site.
struct Cells {
    picture: Array2<f32>,
    types: Labels,
    sites: Labels,
}

impl Cells {
    fn made_up(type_names: &[&str], n_cells: usize) -> Outcome<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let centres = Array2::from_shape_simple_fn((type_names.len(), 8), || rng.random_range(-4.0f32..4.0));
        let sites = ["Heidelberg", "Munich", "reference"];
        let (mut types, mut cell_sites) = (Vec::new(), Vec::new());
        let mut latent = Array2::zeros((n_cells, 8));
        for mut cell in latent.rows_mut() {
            let kind = (rng.random::<f32>().powi(2) * type_names.len() as f32) as usize;
            let noise = Array1::from_shape_simple_fn(8, || (0..4).map(|_| rng.random_range(-0.7f32..0.7)).sum::<f32>());
            cell.assign(&(&centres.row(kind) + &noise));
            types.push(type_names[kind]);
            cell_sites.push(sites[rng.random_range(0..3)]);
        }
        let picture = umap(latent.view(), Umap::default())?;
        Ok(Self { picture, types: Labels::from_names(&types), sites: Labels::from_names(&cell_sites) })
    }

    fn panel(&self, title: &str, colouring: Colouring<'_>, theme: &Theme) -> Outcome<Panel> {
        Ok(Scatter { title, points: self.picture.view(), axes: ["UMAP 1", "UMAP 2"], colouring }.panel(theme)?)
    }
}

fn few_types(theme: &Theme) -> Outcome<Vec<Panel>> {
    let cells =
        Cells::made_up(&["CD14 Mono", "CD4 T", "CD8 T", "B", "NK", "DC", "CD16 Mono", "Platelet", "HSC"], 3500)?;
    let types = Palette::new(cells.types.names());
    let sites = Palette::new(cells.sites.names()).with_muted("reference");
    let depth: Vec<f32> = cells.picture.rows().into_iter().map(|row| (row[0] * 0.7).sin() + row[1] * 0.1).collect();
    Ok(vec![
        cells.panel("Cell type", Colouring::Categories { labels: &cells.types, palette: &types }, theme)?,
        cells.panel("Site", Colouring::Categories { labels: &cells.sites, palette: &sites }, theme)?,
        cells.panel("LYZ", Colouring::Values(&depth), theme)?,
    ])
}

fn many_types(theme: &Theme) -> Outcome<Panel> {
    let names: Vec<String> = (1..=26).map(|i| format!("Type {i} of the lung's airway epithelium")).collect();
    let cells = Cells::made_up(&names.iter().map(String::as_str).collect::<Vec<_>>(), 9000)?;
    let palette = Palette::new(&names);
    cells.panel("Cell type, finest level", Colouring::Categories { labels: &cells.types, palette: &palette }, theme)
}

fn losses(theme: &Theme) -> Outcome<Panel> {
    let curve = |name: &str, level: f64, wobble: f64| LineSeries {
        name: name.to_owned(),
        points: (1..=100)
            .map(|epoch| {
                let t = f64::from(epoch);
                (t, level + 180.0 * (-t / 12.0).exp() + wobble * (t * 1.7).sin())
            })
            .collect(),
    };
    let series = [curve("train", 392.0, 0.6), curve("validation", 397.0, 1.5), curve("surgery, Munich", 431.0, 1.0)];
    let palette = Palette::new(series.iter().map(|series| &series.name));
    let (title, x_label, y_label) = ("Loss", "epoch", "−ELBO per cell (nats)");
    Ok(Lines { title, x_label, y_label, series: &series, palette: &palette }.panel(theme)?)
}

fn figures_of_methods(theme: &Theme) -> Outcome<Panel> {
    let groups = ["kNN accuracy", "kNN purity", "other-batch share", "NMI (k-means)", "ARI (k-means)"];
    let series = [
        ("surgery", [Some(0.897), Some(0.900), Some(0.410), Some(0.735), Some(0.610)]),
        ("untrained", [Some(0.861), Some(0.871), Some(0.300), Some(0.700), None]),
        ("pca", [Some(0.885), Some(0.875), Some(0.209), Some(0.702), Some(0.530)]),
    ]
    .map(|(name, values)| BarSeries { name: name.to_owned(), values: values.to_vec() });
    let palette = Palette::new(series.iter().map(|series| &series.name));
    let (title, subtitle) = ("Mapping quality", "0 to 1, higher is better");
    Ok(Bars { title, subtitle, groups: &groups.map(str::to_owned), series: &series, palette: &palette }.panel(theme)?)
}

const PBMC: [&str; 9] = ["B", "CD14 Mono", "CD16 Mono", "CD4 T", "CD8 T", "DC", "HSC", "NK", "Platelet"];

/// Observed labels, and what an imperfect transfer made of them.
fn transferred() -> (Labels, Labels) {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let pairs = (0..1200).map(|_| {
        let observed = (rng.random::<f32>().powi(2) * 9.0) as usize;
        let predicted = match rng.random_range(0..10) {
            0 => (observed + 1) % 9,
            1 if observed > 3 => 3,
            _ => observed,
        };
        (PBMC[observed], PBMC[predicted])
    });
    let (observed, predicted): (Vec<&str>, Vec<&str>) = pairs.unzip();
    (Labels::from_names(&observed), Labels::from_names(&predicted))
}

fn transfer(theme: &Theme) -> Outcome<Vec<Panel>> {
    let (observed, predicted) = transferred();
    let (confusion, palette) = (Confusion::new(&observed, &predicted)?, Palette::new(PBMC));
    let (title, subtitle) = ("Label transfer", "observed → transferred");
    Ok(vec![
        Heatmap { title: "Confusion", confusion: &confusion }.panel(theme)?,
        Sankey { title, subtitle, left: &observed, right: &predicted, palette: &palette }.panel(theme)?,
    ])
}

fn uncertainty(theme: &Theme) -> Outcome<Panel> {
    let (labels, palette) = (transferred().0, Palette::new(PBMC));
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let values: Vec<f32> =
        labels.codes().iter().map(|&code| rng.random::<f32>().powi(4 - (code % 3) as i32) * 0.8).collect();
    let (title, y_label) = ("Uncertainty of the transfer", "1 − weight of the label");
    Ok(Violin { title, y_label, values: &values, labels: &labels, palette: &palette }.panel(theme)?)
}

fn markers(theme: &Theme) -> Outcome<Panel> {
    let labels = transferred().0;
    let names = ["MS4A1", "LYZ", "FCGR3A", "IL7R", "CD8A", "FCER1A", "CD34", "GNLY", "PPBP"];
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut indptr, mut indices, mut data) = (vec![0], Vec::new(), Vec::new());
    for &code in labels.codes() {
        for gene in 0..names.len() as u32 {
            let is_marker = gene == code;
            if rng.random::<f32>() < if is_marker { 0.85 } else { 0.12 } {
                indices.push(gene);
                data.push(rng.random_range(0.3..1.2) * if is_marker { 3.0 } else { 1.0 });
            }
        }
        indptr.push(indices.len());
    }
    let expression = CsrView::new(names.len(), &indptr, &indices, &data)?;
    let genes: Vec<(String, usize)> = names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), i)).collect();
    Ok(DotPlot { title: "Marker genes", expression, labels: &labels, genes: &genes }.panel(theme)?)
}
