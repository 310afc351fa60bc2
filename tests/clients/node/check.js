'use strict';
// Runs checks by name, such as `sessions.chunked`, and says which ones passed.

async function main(names) {
  for (const name of names) {
    const [theme, check] = name.split('.');
    try {
      await require(`./${theme}`)[check]();
      console.log(`passed ${name}`);
    } catch (error) {
      // The next check may tell more about this one.
      console.log(`FAILED ${name}`, error);
      process.exitCode = 1;
    }
  }
}

main(process.argv.slice(2));
