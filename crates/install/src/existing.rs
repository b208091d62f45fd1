//! What the target has already under the names of the plan, and what becomes of it.

use ferry_content::Problems;
use futures_util::{StreamExt as _, stream};

use crate::Error;
use crate::destination::Destination;
use crate::form::Form;
use crate::preflight::{OnExisting, Planned, State, firsts};

/// Asks the target what it has: one HEAD for each name. Gives the images of which it does not say, with the reason.
pub(crate) async fn look(destination: &Destination, images: &mut [Planned], jobs: usize) -> Vec<(usize, Error)> {
    let firsts = firsts(images);
    let unique: Vec<usize> = firsts.iter().enumerate().filter(|(i, first)| i == *first).map(|(i, _)| i).collect();
    let tasks = unique.iter().map(|i| state(destination, &images[*i]));
    let states: Vec<Result<State, Error>> = stream::iter(tasks).buffered(jobs.max(1)).collect().await;
    let mut unanswered = Vec::new();
    for (i, state) in unique.into_iter().zip(states) {
        match state {
            Ok(state) => images[i].state = state,
            Err(error) => unanswered.push((i, error)),
        }
    }
    for (i, first) in firsts.into_iter().enumerate() {
        images[i].state = images[first].state.clone();
    }
    unanswered
}

async fn state(destination: &Destination, planned: &Planned) -> Result<State, Error> {
    let forms = || std::iter::once(&planned.forms.first).chain(&planned.forms.second);
    if let Some(tag) = &planned.tag {
        return match destination.digest(&planned.repository, tag).await? {
            None => Ok(State::Absent),
            Some(found) => match forms().find(|f| f.root.digest == found) {
                Some(form) if children_present(destination, planned, form).await? => Ok(State::Present(found)),
                Some(_) => Ok(State::Absent),
                None => Ok(State::Moves(found)),
            },
        };
    }
    for form in forms() {
        let digest = &form.root.digest;
        if destination.digest(&planned.repository, &digest.to_string()).await?.as_ref() == Some(digest)
            && children_present(destination, planned, form).await?
        {
            return Ok(State::Present(digest.clone()));
        }
    }
    Ok(State::Absent)
}

/// A registry vouches for what a whole index names; of a sparse one the carried manifests must be asked for.
async fn children_present(destination: &Destination, planned: &Planned, form: &Form) -> Result<bool, Error> {
    if form.sparse {
        for child in &form.children {
            if destination.digest(&planned.repository, &child.digest.to_string()).await?.is_none() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Applies the choice for tags that are there with another digest.
pub(crate) fn settle(images: &mut [Planned], on_existing: OnExisting, host: &str, problems: &mut Problems) {
    for planned in images {
        let State::Moves(found) = &planned.state else { continue };
        match on_existing {
            OnExisting::Overwrite => {}
            OnExisting::Skip => planned.state = State::Skipped(found.clone()),
            OnExisting::Fail => {
                let tag = planned.tag.as_deref().unwrap_or_default();
                let name = format!("{host}/{}:{tag}", planned.repository);
                let ours = planned.forms.first.root.digest.clone();
                let error = Error::Existing { name, found: found.clone(), ours };
                problems.add(format!("image `{}`", planned.image.reference), error);
            }
        }
    }
}
