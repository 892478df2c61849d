import { defineConfig } from "vitest/config"

// A test that needs a real etcd is named so: `*.etcd.test.ts`. Those of `interop` need Go and etcdctl as well.
const etcd = ["test/**/*.etcd.test.ts"]
const interop = ["test/interop/**/*.test.ts"]

export default defineConfig({
  resolve: { conditions: ["@effect-etcd-lock/source"] },
  ssr: { resolve: { conditions: ["@effect-etcd-lock/source"] } },
  test: {
    testTimeout: 60_000,
    hookTimeout: 180_000,
    // Most files of `etcd` and `interop` sleep most of the time.
    maxWorkers: 4,
    projects: [
      { extends: true, test: { name: "unit", include: ["test/**/*.test.ts"], exclude: [...etcd, ...interop] } },
      { extends: true, test: { name: "etcd", include: etcd, globalSetup: ["test/support/globalSetup.ts"] } },
      {
        extends: true,
        test: {
          name: "interop",
          include: interop,
          globalSetup: ["test/support/globalSetup.ts", "test/interop/globalSetup.ts"]
        }
      }
    ]
  }
})
