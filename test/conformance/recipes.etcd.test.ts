import * as World from "../support/World.ts"
import { suite } from "./recipes.ts"

suite(World.make())
