// What every page needs: asking the app, showing a sentence, following a job across reloads.

export const control = (id) => document.getElementById(id);
export const settings = () => JSON.parse(control("settings").textContent);

export async function ask(path, body, type = "application/json") {
  const asked = body === undefined ? {} : { method: "POST", body, headers: { "content-type": type } };
  let response;
  try {
    response = await fetch(path, asked);
  } catch {
    throw new Error("The app does not answer. Look at the terminal where 'neonet3d serve' runs.");
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok || answer === null) {
    throw new Error(answer?.error ?? `The app answered ${response.status} ${response.statusText}. Try again in a moment.`);
  }
  return answer;
}

export function complain(error) {
  const problem = control("problem");
  problem.textContent = error ? error.message : "";
  problem.hidden = !error;
}

// Calls act and shows the sentence of what it throws.
export function trying(act) {
  return async (...given) => {
    complain(null);
    try {
      return await act(...given);
    } catch (error) {
      complain(error);
    }
  };
}

// The job's number stands in the address, so that a reload finds it again.
export const remember = (number) => history.replaceState(null, "", number ? "#" + number : location.pathname);
export const remembered = () => location.hash.slice(1);

// The result of a job; null where it was cancelled, or where the page has turned to another one meanwhile.
export async function follow(number, told) {
  for (;;) {
    const job = await ask("api/jobs/" + number);
    if (number !== remembered()) return null;
    told(job);
    if (job.state === "done") return job.result;
    if (job.state === "failed") throw new Error(job.sentence);
    if (job.state === "cancelled") return null;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

export const cancel = (number) => ask("api/jobs/" + number + "/cancel", "");
export const fileOf = (number, name) => "api/jobs/" + number + "/files/" + name;

export function cells(row, values) {
  for (const value of values) row.insertCell().textContent = value;
  return row;
}
