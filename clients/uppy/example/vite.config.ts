import { defineConfig } from 'vite';

// Everything in files of this origin: no asset is inlined, so that a strict content security policy can stay strict.
export default defineConfig({ base: './', build: { outDir: 'dist', assetsInlineLimit: 0, emptyOutDir: true }, server: { port: 5173 } });
