from skillsd.cli import main

main()
