from local.q.app import main

raise SystemExit(main())
