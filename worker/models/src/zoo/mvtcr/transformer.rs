//! Attention and the layers of transformers, normalised behind each step, as PyTorch has them by default.

use tch::{Kind, Tensor};

use crate::{
    data::Covariates,
    error::Result,
    nn::{Builder, CovariateSizes, Dropout, Init, Linear, Pass, Role},
};

/// Sizes of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerOptions {
    /// Numbers of each position.
    pub(super) width: usize,
    /// Heads of attention.
    pub(super) n_heads: usize,
    /// Units between the two maps of a position.
    pub(super) n_forward: usize,
    /// Dropout rate, of attention too.
    pub(super) dropout: f64,
}

/// A layer of an encoder, or of a decoder: that one also attends to a memory.
#[derive(Debug)]
pub(super) struct Layer {
    own: Attention,
    memory: Option<Attention>,
    first: Linear,
    second: Linear,
    between: Dropout,
    norms: Vec<Norm>,
    drops: Vec<Dropout>,
}

/// Attention of several heads.
#[derive(Debug)]
struct Attention {
    /// Of queries, keys and values, `[3 * width, width]` and `[3 * width]`.
    maps: Tensor,
    biases: Tensor,
    out: Tensor,
    out_bias: Tensor,
    n_heads: i64,
    dropout: Dropout,
}

/// Layer norm with weight and bias.
#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
}

/// What a layer is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// An encoder.
    Encoder,
    /// A decoder, whose positions attend to themselves and earlier ones, and to a memory.
    Decoder,
}

/// Layers of one side, `{name}.layers.{i}.…`. In a new module all start as the first one.
///
/// # Errors  a stored tensor is missing or looks otherwise
pub(super) fn layers(
    b: &mut Builder<'_>,
    name: &str,
    n_layers: usize,
    side: Side,
    options: LayerOptions,
) -> Result<Vec<Layer>> {
    let name_of = |i: usize| format!("{name}.layers.{i}");
    let layer = |i: usize| {
        let layer = Layer::new(b, &name_of(i), side, options)?;
        b.start_as(&name_of(i), &name_of(0));
        Ok(layer)
    };
    (0..n_layers).map(layer).collect()
}

/// True where a position may not look: at later ones, `[n, n]`.
pub(super) fn later(n: i64, like: &Tensor) -> Tensor {
    Tensor::ones([n, n], (Kind::Bool, like.device())).triu(1)
}

impl Layer {
    fn new(b: &mut Builder<'_>, name: &str, side: Side, options: LayerOptions) -> Result<Self> {
        let LayerOptions { width, n_forward, dropout, .. } = options;
        let none = CovariateSizes::none();
        let n_steps = if side == Side::Decoder { 3 } else { 2 };
        let own = Attention::new(b, &format!("{name}.self_attn"), options)?;
        let memory = match side {
            Side::Encoder => None,
            Side::Decoder => Some(Attention::new(b, &format!("{name}.multihead_attn"), options)?),
        };
        let first = Linear::new(b, &format!("{name}.linear1"), width, n_forward, &none)?;
        let second = Linear::new(b, &format!("{name}.linear2"), n_forward, width, &none)?;
        let norms = (1..=n_steps).map(|i| Norm::new(b, &format!("{name}.norm{i}"), width)).collect::<Result<_>>()?;
        let drop = |part: String| Dropout::new(b, format!("{name}.{part}"), dropout);
        let drops = (1..=n_steps).map(|i| drop(format!("dropout{i}"))).collect();
        Ok(Self { own, memory, first, second, between: drop("dropout".to_owned()), norms, drops })
    }

    /// What the layer makes of positions, `[n, n_positions, width]`; `hidden`: where they may not look; a decoder's layer looks at a
    /// memory of the same form too.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        hidden: Option<&Tensor>,
        memory: Option<&Tensor>,
        pass: &mut Pass<'_>,
    ) -> Tensor {
        let x = self.among_themselves(x, hidden, pass);
        self.beyond(&x, memory, pass)
    }

    /// Its first step: what positions take from one another.
    pub(super) fn among_themselves(&self, x: &Tensor, hidden: Option<&Tensor>, pass: &mut Pass<'_>) -> Tensor {
        let y = self.own.forward(x, None, hidden, pass);
        self.add(0, x, y, pass)
    }

    /// The steps behind the first.
    pub(super) fn beyond(&self, x: &Tensor, memory: Option<&Tensor>, pass: &mut Pass<'_>) -> Tensor {
        let (mut x, mut step) = (x.shallow_clone(), 1);
        if let (Some(attention), Some(memory)) = (&self.memory, memory) {
            let y = attention.forward(&x, Some(memory), None, pass);
            x = self.add(step, &x, y, pass);
            step += 1;
        }
        let none = Covariates::none(&x);
        let between = self.between.forward(self.first.forward(&x, &none).relu(), pass);
        let y = self.second.forward(&between, &none);
        self.add(step, &x, y, pass)
    }

    /// A step's result beside what went in, normalised.
    fn add(&self, step: usize, x: &Tensor, y: Tensor, pass: &mut Pass<'_>) -> Tensor {
        self.norms[step].forward(&(x + self.drops[step].forward(y, pass)))
    }
}

impl Attention {
    fn new(b: &mut Builder<'_>, name: &str, options: LayerOptions) -> Result<Self> {
        let LayerOptions { width, n_heads, dropout, .. } = options;
        let zero = Init::Constant(0.0);
        let bound = (6.0 / (4 * width) as f64).sqrt();
        let maps = (format!("{name}.in_proj_weight"), [3 * width, width], Init::Uniform(-bound, bound));
        let out = format!("{name}.out_proj");
        Ok(Self {
            maps: b.tensor(&maps.0, &maps.1, Role::Parameter, maps.2)?,
            biases: b.tensor(&format!("{name}.in_proj_bias"), &[3 * width], Role::Parameter, zero)?,
            out: b.tensor(&format!("{out}.weight"), &[width, width], Role::Parameter, Init::FanIn(width))?,
            out_bias: b.tensor(&format!("{out}.bias"), &[width], Role::Parameter, zero)?,
            n_heads: n_heads as i64,
            dropout: Dropout::new(b, name.to_owned(), dropout),
        })
    }

    /// What positions `x` take from those of a memory, or from one another.
    fn forward(&self, x: &Tensor, memory: Option<&Tensor>, hidden: Option<&Tensor>, pass: &mut Pass<'_>) -> Tensor {
        let width = x.size()[2];
        let part = |from: &Tensor, first: i64, n: i64| {
            let (weight, bias) =
                (self.maps.narrow(0, first * width, n * width), self.biases.narrow(0, first * width, n * width));
            from.linear(&weight, Some(&bias))
        };
        let heads = |y: &Tensor| {
            let size = y.size();
            y.reshape([size[0], size[1], self.n_heads, width / self.n_heads]).transpose(1, 2)
        };
        let all = match memory {
            None => part(x, 0, 3).chunk(3, 2),
            Some(memory) => std::iter::once(part(x, 0, 1)).chain(part(memory, 1, 2).chunk(2, 2)).collect(),
        };
        let scale = 1.0 / ((width / self.n_heads) as f64).sqrt();
        // libtorch's softmax is slow beyond whole vectors: the last one is filled up with keys that nobody may look at.
        let n_keys = all[1].size()[1];
        let filling = n_keys.unsigned_abs().next_multiple_of(VECTOR) as i64 - n_keys;
        let keys = heads(&all[1]).pad([0, 0, 0, filling], "constant", 0.0);
        let mut scores = (heads(&all[0]) * scale).matmul(&keys.transpose(-2, -1));
        if hidden.is_some() || filling > 0 {
            let none = || Tensor::zeros([1, n_keys], (Kind::Bool, x.device()));
            let hidden = hidden.map_or_else(none, Tensor::shallow_clone).pad([0, filling], "constant", 1.0);
            scores = scores.masked_fill(&hidden, f64::NEG_INFINITY);
        }
        let weights = scores.softmax(-1, scores.kind()).narrow(-1, 0, n_keys);
        let weights = self.dropout.forward(weights, pass);
        let taken = weights.matmul(&heads(&all[2])).transpose(1, 2).reshape(x.size());
        taken.linear(&self.out, Some(&self.out_bias))
    }
}

impl Norm {
    fn new(b: &mut Builder<'_>, name: &str, width: usize) -> Result<Self> {
        let mut part = |part: &str, start: f64| {
            b.tensor(&format!("{name}.{part}"), &[width], Role::Parameter, Init::Constant(start))
        };
        Ok(Self { weight: part("weight", 1.0)?, bias: part("bias", 0.0)? })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), 1e-5, false)
    }
}

/// Numbers that libtorch computes at once.
const VECTOR: u64 = 16;
