// One call of the official client and its outcome as plain JSON; in Node and in a page.

/**
 * Make the call and give {value}, {items} of a stream or a list, or {error} (beside the items that came before it).
 *
 * `method` is a path such as "chat.completions.create". With `take` a stream is left after that many items.
 */
export async function call(client, { method, args = [], take = Infinity }) {
  const outcome = {};
  try {
    const path = method.split(".");
    const last = path.pop();
    const owner = path.reduce((part, name) => part[name], client);
    const answer = await owner[last](...args.map(revive));
    if (answer instanceof Response) {
      outcome.value = await answer.text();
    } else if (answer?.[Symbol.asyncIterator]) {
      outcome.items = [];
      for await (const item of answer) {
        outcome.items.push(item);
        if (outcome.items.length >= take) break;
      }
    } else {
      outcome.value = answer;
    }
  } catch (error) {
    outcome.error = describe(error);
  }
  return outcome;
}

/** What a program sees of an error. */
function describe(error) {
  const { message, status, code, param, type, requestID } = error;
  const headers = error.headers ? Object.fromEntries(error.headers) : {};
  return { kind: error.constructor.name, message, status, code, param, type, requestID, headers };
}

/** {"$file": [name, text]} stands for a file; it may be a member of an argument. */
function revive(argument) {
  if (typeof argument !== "object" || argument === null || Array.isArray(argument)) return argument;
  const members = Object.entries(argument).map(([name, value]) =>
    value?.$file ? [name, new File([value.$file[1]], value.$file[0])] : [name, value]);
  return Object.fromEntries(members);
}
