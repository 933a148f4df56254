//! What a recipe brings into a run, on a module of two numbers.

use std::{cell::RefCell, rc::Rc};

use archipelago_anndata::Csr;
use archipelago_common::{StateDict, Tensor as Stored, progress::Silent, task::TrainSpec};
use tch::{Device, Kind, Tensor};

use super::*;
use crate::{
    data::{Dataset, Minibatch, Split},
    error::{Error, Result},
    losses::LossTerms,
    model::Module,
    nn::{Builder, ConditionSource, Init, Mode, Pass, Role, Source, Trainable, Weights},
    zoo,
};

/// Pulls two numbers towards the counts of each minibatch.
struct Pull {
    weights: Weights,
    position: Tensor,
    changes: fn(&Log, &mut Recipe<'_>),
    log: Log,
}

type Log = Rc<RefCell<Vec<String>>>;

impl Pull {
    fn new(changes: fn(&Log, &mut Recipe<'_>)) -> Self {
        let fresh = ConditionSource::Fresh(1);
        let mut builder = Builder::new(Source::Fresh, fresh, Trainable::Everything, [1; 32], Device::Cpu);
        let position = builder.tensor("position", &[2], Role::Parameter, Init::Constant(0.0)).unwrap();
        Self { weights: builder.finish(), position, changes, log: Log::default() }
    }

    fn position(&self) -> Vec<f32> {
        Vec::try_from(self.position.detach()).unwrap()
    }
}

impl Module for Pull {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, minibatch: &Minibatch, _: f64, _: &mut Pass<'_>) -> LossTerms {
        let distance = (&minibatch.x - &self.position).square().sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
        let nothing = distance.zeros_like();
        let mut terms = LossTerms::new(distance, &nothing, None, 1.0);
        terms.further.push(("first", minibatch.x.get(0).get(0)));
        terms
    }

    fn recipe<'a>(&'a self, _: Run<'a, '_>) -> Result<Recipe<'a>> {
        let mut recipe = Recipe::default();
        (self.changes)(&self.log, &mut recipe);
        Ok(recipe)
    }
}

/// Ten cells with counts of 0 to 9.
fn counts() -> Csr {
    Csr::from_dense(10, 2, &(0..20).map(|i| (i / 2) as f32).collect::<Vec<_>>()).unwrap()
}

fn dataset(counts: &Csr) -> Dataset<'_> {
    Dataset::new(counts, vec![0; 10])
}

fn plan(epochs: u32) -> TrainPlan {
    let spec = TrainSpec { epochs: Some(epochs), minibatch: Some(4), learning_rate: Some(0.1), ..TrainSpec::default() };
    TrainPlan::new(zoo::model("scvi").unwrap(), Aim::Reference, &spec, 10).unwrap()
}

fn train(
    module: &Pull,
    epochs: u32,
    store: &mut dyn CheckpointStore,
) -> Result<Vec<archipelago_common::progress::EpochReport>> {
    let counts = counts();
    let dataset = dataset(&counts);
    Trainer::new(module, &dataset, plan(epochs), Seeds::new(1, "test"), Mode::Evaluation)?.run(&mut Silent, store)
}

/// Writes down what it hears, and pulls the position by its own number of epochs.
struct Scribe {
    log: Log,
    n_epochs: i64,
}

impl Hook for Scribe {
    fn before_epoch(&mut self, epoch: Epoch<'_>) -> Result<()> {
        self.log.borrow_mut().push(format!("epoch {} after {} steps", epoch.number, epoch.n_steps));
        Ok(())
    }

    fn before_step(&mut self, cells: &[usize]) -> &[usize] {
        self.log.borrow_mut().push(format!("{} cells", cells.len()));
        &[]
    }

    fn add_to_loss(&mut self, step: Step<'_>, terms: &mut LossTerms, _: &mut Pass<'_>) {
        self.log.borrow_mut().push(format!("loss of step {}", step.number));
        terms.loss = &terms.loss * (1 + self.n_epochs);
    }

    fn after_step(&mut self, step: Step<'_>, _: &mut Pass<'_>) {
        self.log.borrow_mut().push(format!("moved in step {}", step.number));
    }

    fn after_epoch(&mut self, _: Epoch<'_>, seen: &mut Seen) -> Result<()> {
        self.n_epochs += 1;
        seen.train.figures.insert("scribbled".to_owned(), self.n_epochs as f64);
        Ok(())
    }

    fn after_training(&mut self) {
        self.log.borrow_mut().push("over".to_owned());
    }

    fn state(&self) -> StateDict {
        StateDict::from_iter([("n".to_owned(), Stored::from_i64(&[1], &[self.n_epochs]))])
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        self.n_epochs = state.require("state", "n")?.to_i64("n")?[0];
        Ok(())
    }
}

fn with_scribe(log: &Log, recipe: &mut Recipe<'_>) {
    let all = (0..10).collect();
    recipe.split = Some(Split { train: all, validation: vec![], test: vec![] });
    recipe.hooks.push(Box::new(Scribe { log: log.clone(), n_epochs: 0 }));
}

#[test]
fn hooks_are_called_around_every_step_and_epoch() {
    let module = Pull::new(with_scribe);
    train(&module, 2, &mut NoCheckpoints).unwrap();
    let log = module.log.borrow();
    let step = |number: usize, n: usize| {
        [format!("{n} cells"), format!("loss of step {number}"), format!("moved in step {number}")]
    };
    let epoch = |number: usize| {
        let steps = [4, 4, 2].into_iter().enumerate().flat_map(move |(at, n)| step(3 * number + at, n));
        std::iter::once(format!("epoch {number} after {} steps", 3 * number)).chain(steps)
    };
    let expected: Vec<String> = epoch(0).chain(epoch(1)).chain(["over".to_owned()]).collect();
    assert_eq!(*log, expected);
}

/// Keeps one checkpoint in memory.
#[derive(Default)]
struct Kept(Option<Vec<u8>>);

impl CheckpointStore for Kept {
    fn load(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.0.clone())
    }

    fn save(&mut self, checkpoint: &[u8]) -> Result<()> {
        self.0 = Some(checkpoint.to_vec());
        Ok(())
    }

    fn every(&self) -> u32 {
        2
    }
}

#[test]
fn a_run_that_is_taken_up_ends_where_it_would_have_with_its_hooks_as_they_were() {
    let counts = counts();
    let dataset = dataset(&counts);
    let run = |module: &Pull, progress: &mut dyn archipelago_common::progress::Progress, store: &mut Kept| {
        let trainer = Trainer::new(module, &dataset, plan(6), Seeds::new(1, "test"), Mode::Evaluation);
        trainer.unwrap().run(progress, store)
    };
    let whole = Pull::new(with_scribe);
    run(&whole, &mut Silent, &mut Kept::default()).unwrap();
    let mut store = Kept::default();
    let mut stop = |report: &archipelago_common::progress::EpochReport| match report.epoch {
        3 => archipelago_common::progress::Continue::No,
        _ => archipelago_common::progress::Continue::Yes,
    };
    assert!(matches!(run(&Pull::new(with_scribe), &mut stop, &mut store), Err(Error::Cancelled { .. })));
    let resumed = Pull::new(with_scribe);
    run(&resumed, &mut Silent, &mut store).unwrap();
    assert_eq!(resumed.position(), whole.position());
    // Without the hook's state the loss would weigh less from the fourth epoch on.
    assert_ne!(whole.position(), {
        let without = Pull::new(|log, recipe| {
            with_scribe(log, recipe);
            recipe.hooks.clear();
        });
        run(&without, &mut Silent, &mut Kept::default()).unwrap();
        without.position()
    });
}

#[test]
fn a_recipe_decides_on_split_order_rate_and_means() {
    let module = Pull::new(|_, recipe| {
        recipe.split = Some(Split { train: vec![9, 8, 7, 6, 5], validation: vec![0, 1, 2], test: vec![3, 4] });
        recipe.sampler = Box::new(InOrder);
        recipe.rate = Some(|_, step| if step == 0 { 0.5 } else { 0.0 });
        recipe.means = Means::OverMinibatches;
    });
    train(&module, 2, &mut NoCheckpoints).unwrap();
    // Adam's first step has the size of its rate, and no other step is taken.
    assert!(module.position().iter().all(|x| (x - 0.5).abs() < 0.01), "{:?}", module.position());
    let counts = counts();
    let dataset = dataset(&counts);
    let mut trainer = Trainer::new(&module, &dataset, plan(1), Seeds::new(1, "test"), Mode::Evaluation).unwrap();
    trainer.run(&mut Silent, &mut NoCheckpoints).unwrap();
    // The first cells of the two minibatches, 9 and 5, count alike.
    assert_eq!(trainer.seen[0].train.figure("first"), Some(7.0));
}

/// Ends a run when a figure of the training cells says so, and halves the rate each time.
struct Until {
    figure: &'static str,
    n: f64,
}

impl Rule for Until {
    fn validates(&self) -> bool {
        false
    }

    fn decide(&mut self, seen: &Seen, rate: f64) -> Decision {
        let is_over = seen.figure(Monitor::Train, self.figure).is_some_and(|value| value >= self.n);
        Decision { verdict: if is_over { Verdict::Stop } else { Verdict::Continue }, rate: rate / 2.0 }
    }
}

#[test]
fn a_rule_of_a_recipe_ends_the_run_on_any_figure_and_sets_the_rate() {
    let module = Pull::new(|log, recipe| {
        with_scribe(log, recipe);
        recipe.rule = Some(Box::new(Until { figure: "scribbled", n: 3.0 }));
    });
    let counts = counts();
    let dataset = dataset(&counts);
    let mut trainer = Trainer::new(&module, &dataset, plan(9), Seeds::new(1, "test"), Mode::Evaluation).unwrap();
    let history = trainer.run(&mut Silent, &mut NoCheckpoints).unwrap();
    assert_eq!((history.len(), history[2].n_epochs), (3, 9));
    assert_eq!(trainer.optimiser.rate(), 0.1 / 8.0);
    assert!(trainer.seen.iter().all(|seen| seen.validation.is_none()));
}
