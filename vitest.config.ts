import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

// A test that needs a real etcd is named so: `*.etcd.test.ts`. Those of `interop` need Go, etcdctl, PostgreSQL or Prometheus
// as well, and those of `package` need npm and git.
const etcd = ["test/**/*.etcd.test.ts"]
const interop = ["test/interop/**/*.test.ts"]
const packaged = ["test/package/**/*.test.ts"]

/** What takes longest, so that it starts first and the others end beside it. Two that compute do not start together. */
const longest = [
  "test/lock/properties.test.ts",
  "test/cluster/sharding.test.ts",
  "test/package/git.test.ts",
  "test/etcd/tokens.etcd.test.ts",
  "test/lock/faults.etcd.test.ts",
  "test/fault/short.etcd.test.ts",
  "test/cli/run.etcd.test.ts",
  "test/cli/loss.etcd.test.ts",
  "test/cluster/cluster.etcd.test.ts",
  "test/etcd/cluster.etcd.test.ts",
  "test/conformance/random.etcd.test.ts",
  "test/examples/examples.etcd.test.ts"
]

class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const rank = ({ moduleId }: TestSpecification) => {
      const index = longest.findIndex((file) => moduleId.endsWith(file))
      return index < 0 ? longest.length : index
    }
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b))
  }
}

export default defineConfig({
  resolve: { conditions: ["@effect-etcd-lock/source"] },
  ssr: { resolve: { conditions: ["@effect-etcd-lock/source"] } },
  test: {
    testTimeout: 60_000,
    hookTimeout: 180_000,
    // Most files of `etcd` and `interop` sleep most of the time, and so do the tests in them.
    maxWorkers: 3,
    maxConcurrency: 12,
    // No file changes what another one imports, and loading it all anew for each costs seconds.
    isolate: false,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        test: { name: "unit", include: ["test/**/*.test.ts"], exclude: [...etcd, ...interop, ...packaged] }
      },
      {
        extends: true,
        test: {
          name: "etcd",
          include: etcd,
          globalSetup: ["test/support/globalSetup.ts", "test/cli/globalSetup.ts"]
        }
      },
      { extends: true, test: { name: "package", include: packaged, globalSetup: ["test/support/globalSetup.ts"] } },
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
