// The types of `client.js`, which is made of these sources.
export * from '../../../clients/web/src/index.js';
