/** Waiting for what says nothing when it happens: other processes, and files. */

const DEADLINE = 60_000;
const PAUSE = 50;

/**
 * Ask until there is an answer; fails after a minute.
 * @template T
 * @param {() => T | null | undefined | false | Promise<T | null | undefined | false>} ask
 * @param {string} what is waited for, for the message
 * @returns {Promise<T>}
 */
export async function eventually(ask, what) {
  for (const end = Date.now() + DEADLINE; ; ) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`In vain it was waited for this: ${what}.`);
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

/**
 * @template T
 * @param {Promise<T>} promise
 * @param {string} what
 * @returns {Promise<T>}
 */
export function inTime(promise, what) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`It did not come in time: ${what}.`)), DEADLINE);
  });
  return /** @type {Promise<T>} */ (Promise.race([promise, late])).finally(() => clearTimeout(timer));
}
