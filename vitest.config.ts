import { defineConfig } from "vitest/config"

export default defineConfig({
  resolve: { conditions: ["@effect-etcd-lock/source"] },
  ssr: { resolve: { conditions: ["@effect-etcd-lock/source"] } },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/globalSetup.ts"],
    testTimeout: 60_000,
    hookTimeout: 180_000
  }
})
