//! What a picture must hold whatever it looks like: every name and every cell, in the colour its category has elsewhere.

use archipelago_analysis::metrics::Confusion;
use archipelago_analysis::plot::{
    BarSeries, Bars, Colouring, DotPlot, Figure, Heatmap, LineSeries, Lines, Means, Palette, Panel, Sankey,
    SankeyGeometry, Scatter, ShareTable, Theme, Violin,
};
use archipelago_analysis::{AnalysisError, CsrView, Labels};
use ndarray::{Array2, array};
use resvg::tiny_skia::Pixmap;

const THEME: &Theme = &Theme::LIGHT;

fn figure(panel: Panel) -> Figure {
    Figure::grid(None, &[panel], 1, THEME)
}

fn scatter<'a>(points: &'a Array2<f32>, colouring: Colouring<'a>) -> Scatter<'a> {
    Scatter { title: "Cell type", points: points.view(), axes: ["UMAP 1", "UMAP 2"], colouring }
}

#[test]
fn letters_are_rendered_with_the_bundled_font() {
    let points = array![[0.0f32, 0.0], [1.0, 1.0]];
    let panel = scatter(&points, Colouring::Values(&[0.0, 1.0])).panel(THEME).unwrap();
    let pixels =
        |title| Pixmap::decode_png(&Figure::grid(title, std::slice::from_ref(&panel), 1, THEME).png(1.0).unwrap());
    let (blank, titled) = (pixels(Some(" ")).unwrap(), pixels(Some("Monocytes")).unwrap());
    assert_eq!((blank.width(), blank.height()), (titled.width(), titled.height()));
    let n_changed = blank.pixels().iter().zip(titled.pixels()).filter(|(a, b)| a != b).count();
    assert!(n_changed > 300, "the title changed {n_changed} pixels only");
}

#[test]
fn a_long_title_widens_the_picture() {
    let width =
        |title| Pixmap::decode_png(&Figure::grid(Some(title), &[], 1, THEME).png(1.0).unwrap()).unwrap().width();
    assert!(width("Query cells of four hospitals on the reference of two") > 2 * width("Query"));
}

#[test]
fn a_png_has_the_scaled_size_and_absurd_scales_are_refused() {
    let figure = Figure::grid(Some("Nothing to see"), &[], 1, THEME);
    let size = |scale| Pixmap::decode_png(&figure.png(scale).unwrap()).map(|p| (p.width(), p.height())).unwrap();
    assert_eq!(size(2.0), (2 * size(1.0).0, 2 * size(1.0).1));
    for scale in [0.0, -1.0, f64::NAN, 1e9] {
        assert!(matches!(figure.png(scale), Err(AnalysisError::Option { option: "scale", .. })), "{scale}");
    }
}

#[test]
fn every_cell_and_every_category_is_drawn_in_its_colour() {
    let names: Vec<String> = (0..300).map(|i| format!("type {:02}", i % 25)).collect();
    let labels = Labels::from_names(&names);
    let palette = Palette::new(labels.names());
    let points = Array2::from_shape_fn((300, 2), |(i, j)| ((i * 31 + j * 17) % 97) as f32);
    let panel = scatter(&points, Colouring::Categories { labels: &labels, palette: &palette }).panel(THEME).unwrap();
    let svg = figure(panel).svg().to_owned();
    assert_eq!(svg.matches("h0").count(), 300);
    for name in labels.names() {
        assert!(svg.contains(&format!(">{name}</text>")), "{name} has no legend entry");
        assert!(svg.contains(&format!("stroke=\"{}\"", palette.colour(name, THEME))), "{name} has no cell");
    }
    // Each number stands in the picture and in the legend.
    assert!((1..=25).all(|n| svg.matches(&format!(">{n}</text>")).count() == 2));
}

#[test]
fn a_category_looks_the_same_in_every_picture() {
    let all = Palette::new(["B", "NK", "T"]);
    let points = array![[0.0f32, 0.0], [1.0, 1.0]];
    for names in [["B", "T"], ["NK", "T"]] {
        let labels = Labels::from_names(&names);
        let panel = scatter(&points, Colouring::Categories { labels: &labels, palette: &all }).panel(THEME).unwrap();
        assert!(figure(panel).svg().contains(&all.colour("T", THEME).to_string()));
    }
}

#[test]
fn names_with_markup_stay_text() {
    let labels = Labels::from_names(&["CD4+ <naïve> & \"memory\"", "γδ T"]);
    let palette = Palette::new(labels.names());
    let points = array![[0.0f32, 0.0], [1.0, 1.0]];
    let panel = scatter(&points, Colouring::Categories { labels: &labels, palette: &palette }).panel(THEME).unwrap();
    let figure = figure(panel);
    assert!(figure.svg().contains("CD4+ &lt;naïve&gt; &amp; &quot;memory&quot;"));
    figure.png(1.0).unwrap();
}

#[test]
fn one_input_gives_one_picture() {
    let names: Vec<&str> = (0..500).map(|i| ["a", "b", "c"][i % 3]).collect();
    let (labels, palette) = (Labels::from_names(&names), Palette::new(["a", "b", "c"]));
    let points = Array2::from_shape_fn((500, 2), |(i, j)| ((i * 13 + j * 7) % 101) as f32);
    let draw =
        || figure(scatter(&points, Colouring::Categories { labels: &labels, palette: &palette }).panel(THEME).unwrap());
    assert_eq!(draw(), draw());
    assert_eq!(draw().png(1.0).unwrap(), draw().png(1.0).unwrap());
}

#[test]
fn positions_and_columns_that_do_not_fit_are_refused() {
    let check = |points: Array2<f32>, values: &[f32]| scatter(&points, Colouring::Values(values)).panel(THEME);
    assert!(matches!(check(array![[0.0, f32::NAN]], &[1.0]), Err(AnalysisError::NotFinite { column: 1, .. })));
    assert!(matches!(check(array![[0.0]], &[1.0]), Err(AnalysisError::Length { .. })));
    assert!(matches!(check(array![[0.0, 0.0]], &[]), Err(AnalysisError::Length { .. })));
    assert!(check(array![[0.0, 0.0], [0.0, 0.0]], &[f32::NAN, f32::NAN]).is_ok());
}

#[test]
fn a_gap_in_a_curve_is_not_bridged() {
    let palette = Palette::new(["train"]);
    let curve = |points| {
        let series = [LineSeries { name: "train".into(), points }];
        let lines = Lines { title: "Loss", x_label: "epoch", y_label: "nats", series: &series, palette: &palette };
        lines.panel(THEME).map(|panel| figure(panel).svg().matches("stroke-width=\"2.00\"").count())
    };
    assert_eq!(curve(vec![(1.0, 5.0), (2.0, 4.0), (3.0, f64::NAN), (4.0, 3.0), (5.0, 2.0)]), Ok(2));
    assert_eq!(curve(vec![(1.0, 5.0), (2.0, 4.0), (3.0, 3.0)]), Ok(1));
    assert!(matches!(curve(vec![(1.0, f64::INFINITY)]), Err(AnalysisError::TooFew { .. })));
}

#[test]
fn a_bar_without_a_value_leaves_its_place_empty() {
    let groups = ["purity".to_owned(), "ARI".to_owned()];
    let palette = Palette::new(["surgery"]);
    let bars = |values: Vec<Option<f64>>| {
        let series = [BarSeries { name: "surgery".into(), values }];
        let bars = Bars { title: "Quality", subtitle: "", groups: &groups, series: &series, palette: &palette };
        bars.panel(THEME).map(|panel| figure(panel).svg().to_owned())
    };
    let svg = bars(vec![Some(0.9), None]).unwrap();
    assert!(svg.contains(">0.900</text>") && svg.contains(">ARI</text>"));
    assert_eq!(svg.matches("<path").count(), 1 + svg.matches("stroke-linejoin").count());
    assert!(matches!(bars(vec![Some(-0.1), None]), Err(AnalysisError::Option { .. })));
    assert!(matches!(bars(vec![Some(0.1)]), Err(AnalysisError::Length { .. })));
}

#[test]
fn a_table_of_shares_is_of_all_cells_of_a_row_whichever_are_shown_and_can_be_turned() {
    let [rows, columns] =
        [&["B", "odd"][..], &["b"]].map(|names| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>());
    let (counts, totals) = ([vec![30], vec![0]], [40, 0]);
    let table =
        ShareTable { title: "", subtitle: "", rows: &rows, columns: &columns, counts: &counts, totals: &totals };
    let [panel, turned] =
        [table.panel(THEME), table.transposed(THEME)].map(|panel| figure(panel.unwrap()).svg().to_owned());
    for svg in [&panel, &turned] {
        assert!(svg.contains(">75<") && svg.contains(">odd<") && !svg.contains(">100<"), "{svg}");
    }
    assert_ne!(panel, turned);
}

#[test]
fn a_heatmap_writes_the_share_of_each_row() {
    let truth = Labels::from_names(&["B", "B", "B", "B", "T"]);
    let predicted = Labels::from_names(&["B", "B", "B", "T", "T"]);
    let confusion = Confusion::new(&truth, &predicted).unwrap();
    let svg = figure(Heatmap { title: "Transfer", confusion: &confusion }.panel(THEME).unwrap()).svg().to_owned();
    for percent in ["75", "25", "100"] {
        assert_eq!(svg.matches(&format!(">{percent}</text>")).count(), 1, "{percent}");
    }
    let empty = Confusion { labels: Vec::new(), counts: Vec::new() };
    assert!(matches!(Heatmap { title: "", confusion: &empty }.panel(THEME), Err(AnalysisError::TooFew { .. })));
}

#[test]
fn a_name_on_both_sides_of_a_flow_is_two_labels() {
    let left = Labels::from_names(&["B", "B", "T"]);
    let right = Labels::from_names(&["B", "T", "T"]);
    let geometry = SankeyGeometry::new(&left, &right, 2).unwrap();
    assert_eq!(geometry.left, [("T".to_owned(), 1), ("B".to_owned(), 2)]);
    assert_eq!(geometry.right, [("B".to_owned(), 1), ("T".to_owned(), 2)]);
    let palette = Palette::new(["B", "T"]);
    let sankey = Sankey { title: "Transfer", subtitle: "", left: &left, right: &right, palette: &palette };
    assert_eq!(figure(sankey.panel(THEME).unwrap()).svg().matches("B · ").count(), 2);
    let none = Labels::from_names::<&str>(&[]);
    assert!(matches!(SankeyGeometry::new(&none, &none, 2), Err(AnalysisError::TooFew { .. })));
    assert!(matches!(SankeyGeometry::new(&left, &none, 2), Err(AnalysisError::Length { .. })));
    assert!(matches!(SankeyGeometry::new(&left, &right, 1), Err(AnalysisError::Option { .. })));
}

#[test]
fn a_gene_that_no_cell_of_a_label_expresses_has_no_dot() {
    let expression = CsrView::new(2, &[0, 1, 2, 4], &[0, 0, 0, 1], &[1.0, 3.0, 2.0, 5.0]).unwrap();
    let labels = Labels::from_names(&["B", "B", "T"]);
    let genes = [("MS4A1".to_owned(), 0), ("CD3E".to_owned(), 1)];
    let plot =
        |genes: &[(String, usize)]| DotPlot { title: "Markers", expression, labels: &labels, genes }.panel(THEME);
    // Three dots, and four that explain the sizes.
    assert_eq!(figure(plot(&genes).unwrap()).svg().matches("<circle").count(), 3 + 4);
    assert!(matches!(plot(&[("GONE".to_owned(), 2)]), Err(AnalysisError::Length { .. })));
    assert!(matches!(plot(&[]), Err(AnalysisError::TooFew { .. })));
}

#[test]
fn a_violin_leaves_out_what_is_not_finite() {
    let labels = Labels::from_names(&["B", "B", "T", "NK"]);
    let palette = Palette::new(labels.names());
    let violin = |values| {
        let violin = Violin { title: "Uncertainty", y_label: "", values, labels: &labels, palette: &palette };
        violin.panel(THEME).map(|panel| figure(panel).svg().to_owned())
    };
    let svg = violin(&[0.1, 0.4, 0.2, f32::NAN]).unwrap();
    assert!(svg.contains(">T</text>") && !svg.contains(">NK</text>"));
    assert!(matches!(violin(&[f32::NAN; 4]), Err(AnalysisError::TooFew { .. })));
    assert!(matches!(violin(&[0.0]), Err(AnalysisError::Length { .. })));
}

#[test]
fn every_gene_is_a_dot_and_the_named_are_written_out() {
    let (across, upwards) = ([0.0, 1.0, 2.0], [0.0, 1.5, 2.0]);
    let named = [(1, "ISG15".to_owned())];
    let picture = Means {
        title: "Mean expression",
        subtitle: "R² 0.9",
        sides: ["predicted", "observed"],
        across: &across,
        upwards: &upwards,
        marked: &[1],
        named: &named,
    };
    let svg = figure(picture.panel(THEME).unwrap()).svg().to_owned();
    assert_eq!(svg.matches("h0").count(), 3);
    for text in ["ISG15", "predicted", "observed", "R² 0.9"] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(Means { across: &[0.0], ..picture }.panel(THEME).is_err());
    assert!(Means { across: &[0.0, f64::NAN, 1.0], ..picture }.panel(THEME).is_err());
}
